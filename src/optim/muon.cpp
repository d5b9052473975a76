#include "optim/muon.h"

#include <algorithm>
#include <cmath>

#include "backend/elementwise.h"
#include "backend/matmul.h"
#include "backend/optim.h"
#include "backend/reduce.h"

namespace lh {

Tensor newton_schulz(const Tensor& gradient, const std::string& variant, int64_t steps) {
  const bool keller = variant == "keller";
  if (!keller && variant != "tilde")
    fail<ConfigError>("optim.muon.newton_schulz: unknown variant '{}'", variant);
  const double a = keller ? 3.4445 : 2, b = keller ? -4.7750 : -1.5, c = keller ? 2.0315 : 0.5;
  const Device device = gradient.device();
  // X X^T has the smaller size when X is wide.
  const bool flip = gradient.size(0) > gradient.size(1);
  const int64_t rows = std::min(gradient.size(0), gradient.size(1));
  Tensor x = Tensor::empty({rows, std::max(gradient.size(0), gradient.size(1))}, gradient.dtype(),
                           device);
  LH_DISPATCH(device, "muon", copy(flip ? gradient.transpose(0, 1) : gradient, x));
  Tensor norm = Tensor::empty({1}, DType::kF64, device);
  LH_DISPATCH(device, "muon", sum_of_squares(x, norm, false));
  Tensor inverse =
      Tensor::empty({1}, x.dtype() == DType::kF64 ? DType::kF64 : DType::kF32, device);
  LH_DISPATCH(device, "muon", inverse_norm(norm, 1e-7, inverse));
  LH_DISPATCH(device, "muon", scale_by(x, inverse, x, false));
  Tensor gram = Tensor::empty({rows, rows}, x.dtype(), device);
  Tensor polynomial = Tensor::empty_like(gram), next = Tensor::empty_like(x);
  for (int64_t i = 0; i < steps; ++i) {
    LH_DISPATCH_SCRATCH(device, "muon", gemm(x, false, x, true, gram, false));
    LH_DISPATCH_SCRATCH(device, "muon", gemm(gram, false, gram, false, polynomial, false));
    LH_DISPATCH(device, "muon", add_scaled(gram, b, polynomial, c, polynomial));
    LH_DISPATCH_SCRATCH(device, "muon", gemm(polynomial, false, x, false, next, false));
    LH_DISPATCH(device, "muon", add_scaled(x, a, next, 1, x));
  }
  if (!flip) return x;
  Tensor back = Tensor::empty(gradient.shape(), x.dtype(), device);
  LH_DISPATCH(device, "muon", copy(x.transpose(0, 1), back));
  return back;
}

double muon_scale(const std::string& scaling, int64_t rows, int64_t cols) {
  const auto r = static_cast<double>(rows), c = static_cast<double>(cols);
  if (scaling == "keller") return std::sqrt(std::max(1.0, r / c));
  if (scaling == "moonlight") return 0.2 * std::sqrt(std::max(r, c));
  fail<ConfigError>("optim.muon.scaling: unknown scaling '{}'", scaling);
}

MuonState::MuonState(const OwnedParam& owned) : owned_(owned) {
  const MemoryScope scope(MemoryOwner::kOptimizer);
  const Tensor like = part_of(owned.rule.parameter->master, owned.part);
  momentum_ = Tensor::zeros(like.shape(), like.dtype(), like.device());
}

void MuonState::step(const MuonConfig& config, double learning_rate, const Tensor& scalars) {
  const ParamRule& rule = owned_.rule;
  Parameter& parameter = *rule.parameter;
  const Tensor gradient = parameter.variable.grad();
  if (!gradient.defined() || owned_.part.count() == 0) return;
  const Device device = gradient.device();
  Tensor direction = config.nesterov ? Tensor::empty_like(momentum_) : momentum_;
  LH_DISPATCH(device, "muon",
              momentum_step(momentum_, gradient, config.momentum, scalars,
                            config.nesterov ? &direction : nullptr));
  Tensor update = newton_schulz(direction, config.newton_schulz, config.resolved_steps());
  LH_DISPATCH(device, "muon",
              scale(update, muon_scale(config.scaling, update.size(0), update.size(1)), update));
  Tensor compute = parameter.compute_copy();
  LH_DISPATCH(device, "muon",
              apply_update(parameter.master, update, learning_rate, rule.lr_multiplier,
                           rule.weight_decay, scalars, compute.defined() ? &compute : nullptr));
}

void MuonState::append_state(std::vector<StateTensor>& state) const {
  state.push_back({{owned_.rule.parameter->name + ".momentum", momentum_}, owned_.index});
}

}  // namespace lh
