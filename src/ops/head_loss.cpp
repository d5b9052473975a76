#include "ops/head_loss.h"

#include "backend/elementwise.h"
#include "backend/reduce.h"

namespace lh {

void check_head(const Variable& x, const Variable& weight, const Tensor& targets,
                std::string_view op) {
  if (x.value().rank() != 2 || weight.value().rank() != 2 || x.size(1) != weight.size(1) ||
      x.dtype() != weight.dtype())
    fail<ShapeError>("[{}] expected x [n, d] and weight [vocab, d] of one dtype, got {} and {}", op,
                     x.value().str(), weight.value().str());
  check_shape(targets, {x.size(0)}, op, "targets");
  check_dtype(targets, DType::kI32, op, "targets");
}

Variable record_head_loss(const char* op, const Variable& x, const Variable& weight,
                          const Tensor& losses, HeadGradients gradients) {
  Tensor total = Tensor::empty({1}, DType::kF64, x.device());
  LH_DISPATCH(x.device(), op, sum(losses, total, false));
  Tensor loss = Tensor::empty({1}, losses.dtype(), x.device());
  LH_DISPATCH(x.device(), op, copy(total, loss));
  return record(op, {x, weight}, loss,
                [dx = gradients.dx, dw = gradients.dw, op](Gradients& wanted) mutable {
                  const Tensor& upstream = wanted.output();
                  if (wanted.wants(0)) {
                    LH_DISPATCH(dx.device(), op, scale_by(dx, upstream, dx, false));
                    wanted.add(0, std::move(dx));
                  }
                  if (wanted.wants(1)) {
                    Tensor sum = wanted.accumulator(1);
                    LH_DISPATCH(dw.device(), op, scale_by(dw, upstream, sum, true));
                  }
                });
}

}  // namespace lh
