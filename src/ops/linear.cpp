#include "ops/linear.h"

#include "backend/elementwise.h"
#include "backend/matmul.h"

namespace lh {
namespace {

// Up to this many rows the product reads the weight once at memory speed (decoding).
constexpr int64_t kMaxGemvRows = 8;

}  // namespace

Variable linear(const Variable& x, const Variable& weight, const Variable& bias) {
  if (x.value().rank() != 2 || weight.value().rank() != 2 || x.size(1) != weight.size(1))
    fail<ShapeError>("[linear] expected x [n, in] and weight [out, in], got {} and {}",
                     x.value().str(), weight.value().str());
  check_dtype(weight.value(), x.dtype(), "linear", "weight");
  if (bias.defined()) check_shape(bias.value(), {weight.size(0)}, "linear", "bias");
  Tensor y = Tensor::empty({x.size(0), weight.size(0)}, x.dtype(), x.device());
  const bool history = will_record({x, weight, bias});
  if (!history && x.size(0) <= kMaxGemvRows) {
    LH_DISPATCH(x.device(), "linear", gemv(x.value(), weight.value(), y));
    if (bias.defined()) LH_DISPATCH(x.device(), "linear", add_bias(y, bias.value()));
  } else {
    LH_DISPATCH_SCRATCH(x.device(), "linear",
                        gemm(x.value(), false, weight.value(), true, y, false,
                             bias.defined() ? bias.value() : Tensor()));
  }
  return record("linear", {x, weight, bias}, y,
                [x = Saved(x), w = weight.value()](Gradients& gradients) {
                  const Tensor& dy = gradients.output();
                  const Device device = dy.device();
                  if (gradients.wants(0)) {
                    Gradients::Target dx = gradients.target(0);
                    LH_DISPATCH_SCRATCH(device, "linear", gemm(dy, false, w, false, dx.tensor, dx.holds_sum));
                  }
                  const bool wants_bias = gradients.wants(2);
                  Tensor db = wants_bias ? gradients.accumulator(2) : Tensor();
                  if (gradients.wants(1)) {
                    Gradients::Target dw = gradients.target(1);
                    if (wants_bias)
                      LH_DISPATCH_SCRATCH(device, "linear",
                          gemm_bias_backward(dy, x.get(), dw.tensor, dw.holds_sum, db));
                    else
                      LH_DISPATCH_SCRATCH(device, "linear",
                                          gemm(dy, true, x.get(), false, dw.tensor, dw.holds_sum));
                  } else if (wants_bias) {
                    LH_DISPATCH(device, "linear", bias_backward(dy, db));
                  }
                });
}

}  // namespace lh
