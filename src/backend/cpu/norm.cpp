// RMSNorm: blocks of rows for OpenMP; the weight gradient is summed per block, then over blocks in
// order, so that it does not depend on the number of threads.
#include "backend/norm.h"

#include "backend/cpu/lanes.h"
#include "backend/operands.h"
#include "backend/cpu/parallel.h"
#include "backend/cpu/simd/elementwise.h"
#include "backend/cpu/simd/norm.h"
#include "backend/elementwise.h"

namespace lh::cpu {
namespace {

void check_operands(const Tensor& x, const Tensor& weight, const Tensor& other,
                    const Tensor& rstd, std::string_view op, std::string_view other_name) {
  check_rank(x, 2, op, "x");
  check_shape(weight, {x.size(1)}, op, "weight");
  check_contiguous(x, op, "x");
  check_like(other, x, op, other_name);
  check_contiguous(other, op, other_name);
  check_sum(rstd, {x.size(0)}, x.dtype(), op, "rstd");
}

/// The weight in the dtype the arithmetic is done in.
Tensor in_sum_dtype(const Tensor& weight, DType dtype) {
  if (weight.dtype() == sum_dtype(dtype) && weight.is_contiguous()) return weight;
  Tensor converted = Tensor::empty(weight.shape(), sum_dtype(dtype), weight.device());
  if (!weight.device().is_meta()) copy(weight, converted);
  return converted;
}

}  // namespace

void rms_norm_forward(const Tensor& x, const Tensor& weight, double eps, Tensor& y,
                      Tensor& rstd) {
  check_operands(x, weight, y, rstd, "rms_norm", "y");
  const int64_t rows = x.size(0), d = x.size(1);
  const Tensor w = in_sum_dtype(weight, x.dtype());
  dispatch_float(x.dtype(), "rms_norm", [&]<typename T>() {
    using S = accumulate_t<T>;
    for_each_block(rows, rows_per_task(d), [&](int64_t, int64_t begin, int64_t end) {
      LH_SIMD_CALL(rms_norm_forward(lanes<T>(x) + begin * d, w.data<S>(), static_cast<S>(eps),
                                    lanes<T>(y) + begin * d, rstd.data<S>() + begin, end - begin,
                                    d));
    });
  });
}

void rms_norm_backward(const Tensor& x, const Tensor& weight, const Tensor& rstd, const Tensor& dy,
                       Tensor& dx, bool accumulate_dx, Tensor& d_weight) {
  check_operands(x, weight, dy, rstd, "rms_norm_backward", "dy");
  check_like(dx, x, "rms_norm_backward", "dx");
  check_contiguous(dx, "rms_norm_backward", "dx");
  const int64_t rows = x.size(0), d = x.size(1);
  check_sum(d_weight, {d}, x.dtype(), "rms_norm_backward", "d_weight");
  if (x.numel() == 0) return;
  const Tensor w = in_sum_dtype(weight, x.dtype());
  // At most 64 partial sums, each over at least one task's worth of rows.
  const int64_t block = std::max(rows_per_task(d), ceil_div(rows, 64));
  const int64_t blocks = ceil_div(rows, block);
  Tensor partial = Tensor::zeros({blocks, d}, sum_dtype(x.dtype()), x.device());
  if (x.device().is_meta()) return;
  dispatch_float(x.dtype(), "rms_norm_backward", [&]<typename T>() {
    using S = accumulate_t<T>;
    S* partials = partial.data<S>();
    for_each_block(rows, block, [&](int64_t index, int64_t begin, int64_t end) {
      LH_SIMD_CALL(rms_norm_backward(lanes<T>(x) + begin * d, w.data<S>(), rstd.data<S>() + begin,
                                     lanes<T>(dy) + begin * d, lanes<T>(dx) + begin * d,
                                     accumulate_dx, partials + index * d, end - begin, d));
    });
    for (int64_t i = 0; i < blocks; ++i)
      LH_SIMD_CALL(accumulate(d_weight.data<S>(), partials + i * d, S{1}, d));
  });
}

}  // namespace lh::cpu
