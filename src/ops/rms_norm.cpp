#include "ops/rms_norm.h"

#include "backend/norm.h"

namespace lh {

Variable rms_norm(const Variable& x, const Variable& weight, double eps) {
  LH_CHECK(x.value().rank() >= 1 && x.value().is_contiguous(),
           "[rms_norm] x must be contiguous, got {}", x.value().str());
  const int64_t d = x.size(-1);
  check_shape(weight.value(), {d}, "rms_norm", "weight");
  const Shape shape = x.shape();
  const Tensor rows = x.value().reshape({-1, d});
  const DType statistics = x.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
  Tensor y = Tensor::empty_like(rows);
  Tensor rstd = Tensor::empty({rows.size(0)}, statistics, x.device());
  LH_DISPATCH(x.device(), "rms_norm", rms_norm_forward(rows, weight.value(), eps, y, rstd));

  const Saved saved_x(x);
  return record_cheap(
      "rms_norm", {x, weight}, y.reshape(shape),
      [saved_x, w = weight.value(), rstd, d](Gradients& gradients) {
        const Tensor input = saved_x.get().reshape({-1, d});
        const Tensor dy = gradients.output().reshape({-1, d});
        // The weight's sum is wanted in f32; a scratch serves when only dx is.
        Tensor dw = gradients.wants(1) ? gradients.accumulator(1)
                                       : Tensor::zeros({d}, rstd.dtype(), dy.device());
        if (!gradients.wants(0)) {
          Tensor unused = Tensor::empty_like(input);
          LH_DISPATCH_SCRATCH(dy.device(), "rms_norm",
                              rms_norm_backward(input, w, rstd, dy, unused, false, dw));
          return;
        }
        Gradients::Target dx = gradients.target(0);
        Tensor dx_rows = dx.tensor.reshape({-1, d});
        LH_DISPATCH_SCRATCH(dy.device(), "rms_norm",
                            rms_norm_backward(input, w, rstd, dy, dx_rows, dx.holds_sum, dw));
      },
      [saved_x, w = weight.value(), eps, d, shape, statistics] {
        const Tensor input = saved_x.get().reshape({-1, d});
        Tensor again = Tensor::empty_like(input);
        Tensor rstd_again = Tensor::empty({input.size(0)}, statistics, input.device());
        LH_DISPATCH(input.device(), "rms_norm", rms_norm_forward(input, w, eps, again, rstd_again));
        return again.reshape(shape);
      });
}

}  // namespace lh
