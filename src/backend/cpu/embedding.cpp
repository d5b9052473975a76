// Embedding lookup and its gradient.
#include "backend/embedding.h"

#include <cstring>

#include "backend/cpu/lanes.h"
#include "backend/operands.h"
#include "backend/cpu/parallel.h"
#include "backend/cpu/simd/elementwise.h"

namespace lh::cpu {
namespace {

void check_ids(const Tensor& ids, int64_t vocab, std::string_view op) {
  check_rank(ids, 1, op, "ids");
  check_contiguous(ids, op, "ids");
  const int32_t* id = ids.data<int32_t>();
  for (int64_t i = 0; i < ids.size(0); ++i) {
    if (id[i] < 0 || id[i] >= vocab)
      fail<ShapeError>("[{}] ids[{}] = {} is outside the vocabulary of {}", op, i, id[i], vocab);
  }
}

}  // namespace

void embedding_forward(const Tensor& weight, const Tensor& ids, double scale, Tensor& y) {
  check_rank(weight, 2, "embedding", "weight");
  check_contiguous(weight, "embedding", "weight");
  check_ids(ids, weight.size(0), "embedding");
  const int64_t n = ids.size(0), d = weight.size(1);
  check_shape(y, {n, d}, "embedding", "y");
  check_dtype(y, weight.dtype(), "embedding", "y");
  check_contiguous(y, "embedding", "y");
  const int32_t* id = ids.data<int32_t>();
  dispatch_float(weight.dtype(), "embedding", [&]<typename T>() {
    const auto factor = static_cast<accumulate_t<T>>(scale);
    for_each_block(n, rows_per_task(d), [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto* row = lanes<T>(weight) + id[i] * d;
        auto* out = lanes<T>(y) + i * d;
        if (scale == 1) std::memcpy(out, row, static_cast<size_t>(d) * sizeof(T));
        else LH_SIMD_CALL(scale(row, factor, out, d));
      }
    });
  });
}

void embedding_backward(const Tensor& ids, const Tensor& dy, double scale, Tensor& d_weight) {
  check_rank(d_weight, 2, "embedding_backward", "d_weight");
  check_ids(ids, d_weight.size(0), "embedding_backward");
  const int64_t n = ids.size(0), d = d_weight.size(1);
  check_shape(dy, {n, d}, "embedding_backward", "dy");
  check_contiguous(dy, "embedding_backward", "dy");
  check_sum(d_weight, d_weight.shape(), dy.dtype(), "embedding_backward", "d_weight");
  const int32_t* id = ids.data<int32_t>();
  dispatch_float(dy.dtype(), "embedding_backward", [&]<typename T>() {
    using S = accumulate_t<T>;
    // Each task owns the rows of d_weight whose id falls to it and a slice of the columns, and
    // scans all ids: a row is summed in the order of n whatever the number of tasks.
    constexpr int64_t kIdTasks = 16, kColumns = 512;
    const int64_t slices = ceil_div(d, kColumns);
    const int64_t id_tasks = n * d <= kFlatBlock ? 1 : kIdTasks;
    for_each_block(id_tasks * slices, 1, [&](int64_t task, int64_t, int64_t) {
      const int64_t begin = task / id_tasks * kColumns, end = std::min(d, begin + kColumns);
      for (int64_t i = 0; i < n; ++i) {
        if (id[i] % id_tasks != task % id_tasks) continue;
        LH_SIMD_CALL(accumulate(d_weight.data<S>() + id[i] * d + begin,
                                lanes<T>(dy) + i * d + begin, static_cast<S>(scale), end - begin));
      }
    });
  });
}

}  // namespace lh::cpu
