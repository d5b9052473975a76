#include "ops/rope.h"

#include "backend/rope.h"

namespace lh {

Variable rope(const Variable& x, const Tensor& table, const Tensor& positions) {
  if (x.value().rank() != 3 || table.size(1) != x.size(2))
    fail<ShapeError>("[rope] expected x [n, heads, d] and table [positions, d], got {} and {}",
                     x.value().str(), table.str());
  check_shape(positions, {x.size(0)}, "rope", "positions");
  check_dtype(positions, DType::kI32, "rope", "positions");
  Tensor y = Tensor::empty_like(x.value());
  LH_DISPATCH(x.device(), "rope", rope(x.value(), table, positions, false, y));
  return record("rope", {x}, y, [table, positions](Gradients& gradients) {
    const Tensor& dy = gradients.output();
    Tensor dx = Tensor::empty_like(dy);
    LH_DISPATCH(dy.device(), "rope", rope(dy, table, positions, true, dx));
    gradients.add(0, dx);
  });
}

}  // namespace lh
