// Rotary position embedding: one task per run of tokens.
#include "backend/rope.h"

#include "backend/cpu/lanes.h"
#include "backend/operands.h"
#include "backend/cpu/parallel.h"
#include "backend/cpu/simd/rope.h"
#include "backend/elementwise.h"

namespace lh::cpu {

void rope(const Tensor& x, const Tensor& table, const Tensor& positions, bool inverse, Tensor& y) {
  check_rank(x, 3, "rope", "x");
  const int64_t n = x.size(0), heads = x.size(1), d = x.size(2);
  if (d % 2 != 0) fail<ShapeError>("[rope] head dimension must be even, got {}", x.str());
  check_like(y, x, "rope", "y");
  check_rank(table, 2, "rope", "table");
  check_shape(table, {table.size(0), d}, "rope", "table");
  check_contiguous(table, "rope", "table");
  check_shape(positions, {n}, "rope", "positions");
  check_contiguous(positions, "rope", "positions");
  const RowView from = row_view(x, 1, "rope", "x"), to = row_view(y, 1, "rope", "y");
  const int32_t* position = positions.data<int32_t>();
  for (int64_t i = 0; i < n; ++i) {
    if (position[i] < 0 || position[i] >= table.size(0))
      fail<ShapeError>("[rope] positions[{}] = {} is outside the table of {} positions", i,
                       position[i], table.size(0));
  }
  Tensor angles = table;
  if (table.dtype() != sum_dtype(x.dtype())) {
    angles = Tensor::empty(table.shape(), sum_dtype(x.dtype()));
    copy(table, angles);
  }
  dispatch_float(x.dtype(), "rope", [&]<typename T>() {
    using S = accumulate_t<T>;
    const S sign = inverse ? S{-1} : S{1};
    for_each_block(n, rows_per_task(heads * d), [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const S* row = angles.data<S>() + position[i] * d;
        LH_SIMD_CALL(rope(lanes<T>(x) + i * from.stride, row, row + d / 2, sign,
                          lanes<T>(y) + i * to.stride, heads, d));
      }
    });
  });
}

}  // namespace lh::cpu
