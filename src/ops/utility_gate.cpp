#include "ops/utility_gate.h"

#include "backend/reduce.h"

namespace lh {

Variable utility_gate(const Variable& logits, const UtilityGate& gate) {
  if (!(gate.threshold > 0 && gate.threshold < 1) || !(gate.alpha >= 0 && gate.alpha <= 1))
    fail<ConfigError>(
        "[utility_gate] expected 0 < threshold < 1 and 0 <= alpha <= 1, got {} and {}",
        gate.threshold, gate.alpha);
  const DType wide = logits.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
  Tensor bias = Tensor::empty(logits.shape(), wide, logits.device());
  LH_DISPATCH(logits.device(), "utility_gate", utility_gate_forward(logits.value(), gate, bias));
  if (gate.mode == GateMode::kHard && !gate.weighted) return Variable(bias);
  return record("utility_gate", {logits}, bias,
                [logits = Saved(logits), gate](Gradients& gradients) {
                  const Tensor x = logits.get();
                  Tensor dx = Tensor::empty_like(x);
                  LH_DISPATCH(x.device(), "utility_gate",
                              utility_gate_backward(x, gate, gradients.output(), dx));
                  gradients.add(0, dx);
                });
}

void add_utilities(const Variable& logits, const UtilityGate& gate, Tensor& total) {
  const Tensor& x = logits.value();
  Tensor u = Tensor::empty(x.shape(), x.dtype() == DType::kF64 ? DType::kF64 : DType::kF32, x.device());
  LH_DISPATCH(x.device(), "utility_gate", utility_values(x, gate, u));
  LH_DISPATCH(x.device(), "utility_gate", sum(u, total, true));
}

}  // namespace lh
