#include "ops/linear_cross_entropy.h"

#include "backend/elementwise.h"
#include "backend/loss.h"
#include "backend/reduce.h"

namespace lh {

LinearCrossEntropy linear_cross_entropy(const Variable& x, const Variable& weight,
                                        const Tensor& targets, double logit_scale) {
  if (x.value().rank() != 2 || weight.value().rank() != 2 || x.size(1) != weight.size(1))
    fail<ShapeError>("[linear_cross_entropy] expected x [n, d] and weight [vocab, d], got {} and {}",
                     x.value().str(), weight.value().str());
  check_shape(targets, {x.size(0)}, "linear_cross_entropy", "targets");
  check_dtype(targets, DType::kI32, "linear_cross_entropy", "targets");
  const DType wide = x.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
  const Device device = x.device();
  const bool history = will_record({x, weight});

  LinearCrossEntropyOptions options;
  options.logit_scale = logit_scale;
  LinearCrossEntropy result;
  result.losses = Tensor::empty({x.size(0)}, wide, device);
  Tensor dx, dw;
  if (history) {
    dx = Tensor::empty_like(x.value());
    dw = Tensor::zeros(weight.shape(), wide, device);
  }
  LH_DISPATCH(device, "linear_cross_entropy",
              linear_cross_entropy(x.value(), weight.value(), targets, options, result.losses,
                                   history ? &dx : nullptr, history ? &dw : nullptr));
  Tensor total = Tensor::empty({1}, DType::kF64, device);
  LH_DISPATCH(device, "linear_cross_entropy", sum(result.losses, total, false));
  Tensor loss = Tensor::empty({1}, wide, device);
  LH_DISPATCH(device, "linear_cross_entropy", copy(total, loss));

  result.loss_sum =
      record("linear_cross_entropy", {x, weight}, loss, [dx, dw](Gradients& gradients) mutable {
        const Tensor& upstream = gradients.output();
        if (gradients.wants(0)) {
          LH_DISPATCH(dx.device(), "linear_cross_entropy", scale_by(dx, upstream, dx, false));
          gradients.add(0, std::move(dx));
        }
        if (gradients.wants(1)) {
          Tensor sum = gradients.accumulator(1);
          LH_DISPATCH(dw.device(), "linear_cross_entropy", scale_by(dw, upstream, sum, true));
        }
      });
  return result;
}

}  // namespace lh
