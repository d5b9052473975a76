// Reductions: fixed blocks, then the blocks in order.
#include "backend/reduce.h"

#include <cmath>
#include <vector>

#include "backend/cpu/lanes.h"
#include "backend/operands.h"
#include "backend/cpu/parallel.h"
#include "backend/elementwise.h"
#include "backend/cpu/simd/reduce.h"

namespace lh::cpu {
namespace {

template <typename R, typename F>
R sum_blocks(int64_t n, F&& block_sum) {
  std::vector<R> partial(static_cast<size_t>(ceil_div(n, kFlatBlock)));
  for_each_block(n, kFlatBlock, [&](int64_t index, int64_t begin, int64_t end) {
    partial[static_cast<size_t>(index)] = block_sum(begin, end - begin);
  });
  R total = 0;
  for (const R value : partial) total += value;
  return total;
}

void add_to(Tensor& out, double value, bool accumulate, std::string_view op) {
  check_shape(out, {1}, op, "out");
  double* result = out.data<double>();
  *result = accumulate ? *result + value : value;
}

}  // namespace

void sum_of_squares(const Tensor& x, Tensor& out, bool accumulate) {
  check_contiguous(x, "sum_of_squares", "x");
  dispatch_float(x.dtype(), "sum_of_squares", [&]<typename T>() {
    const double total = sum_blocks<double>(x.numel(), [&](int64_t at, int64_t n) {
      return LH_SIMD_CALL(sum_of_squares(lanes<T>(x) + at, n));
    });
    add_to(out, total, accumulate, "sum_of_squares");
  });
}

void sum_of_squares(const TensorList& list, Tensor& out) {
  add_to(out, 0, false, "sum_of_squares");
  for (const Tensor& x : list.tensors) sum_of_squares(x, out, true);
}

void sum(const Tensor& x, Tensor& out, bool accumulate) {
  check_contiguous(x, "sum", "x");
  dispatch_float(x.dtype(), "sum", [&]<typename T>() {
    const double total = sum_blocks<double>(x.numel(), [&](int64_t at, int64_t n) {
      return LH_SIMD_CALL(sum(lanes<T>(x) + at, n));
    });
    add_to(out, total, accumulate, "sum");
  });
}

void inverse_norm(const Tensor& sum_of_squares, double eps, Tensor& out) {
  check_shape(sum_of_squares, {1}, "inverse_norm", "sum_of_squares");
  check_shape(out, {1}, "inverse_norm", "out");
  fill(out, 1 / (std::sqrt(*sum_of_squares.data<double>()) + eps));
}

void count_non_finite(const Tensor& x, Tensor& out) {
  check_contiguous(x, "count_non_finite", "x");
  check_shape(out, {1}, "count_non_finite", "out");
  dispatch_float(x.dtype(), "count_non_finite", [&]<typename T>() {
    *out.data<int64_t>() = sum_blocks<int64_t>(x.numel(), [&](int64_t at, int64_t n) {
      return LH_SIMD_CALL(count_non_finite(lanes<T>(x) + at, n));
    });
  });
}

}  // namespace lh::cpu
