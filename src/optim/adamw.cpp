#include "optim/adamw.h"

#include "backend/optim.h"

namespace lh {

AdamWState::AdamWState(const ParamRule& rule) : rule_(rule) {
  const MemoryScope scope(MemoryOwner::kOptimizer);
  const Tensor& master = rule.parameter->master;
  m_ = Tensor::zeros(master.shape(), master.dtype(), master.device());
  v_ = Tensor::zeros(master.shape(), master.dtype(), master.device());
}

void AdamWState::step(const OptimConfig& config, double learning_rate, double weight_decay_factor,
                      double grad_scale, int64_t step) {
  Parameter& parameter = *rule_.parameter;
  const Tensor gradient = parameter.variable.grad();
  if (!gradient.defined()) return;
  const AdamWStep update{.learning_rate = learning_rate * rule_.lr_multiplier,
                         .beta1 = config.beta1,
                         .beta2 = config.beta2,
                         .eps = config.eps,
                         .weight_decay = rule_.weight_decay * weight_decay_factor,
                         .step = step,
                         .grad_scale = grad_scale};
  Tensor compute = parameter.compute_copy();
  LH_DISPATCH(gradient.device(), "adamw",
              adamw_step(parameter.master, gradient, m_, v_, update,
                         compute.defined() ? &compute : nullptr));
}

void AdamWState::append_state(std::vector<NamedTensor>& state) const {
  state.push_back({rule_.parameter->name + ".m", m_});
  state.push_back({rule_.parameter->name + ".v", v_});
}

}  // namespace lh
