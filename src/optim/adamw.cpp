#include "optim/adamw.h"

namespace lh {

void AdamW::add(const ParamRule& rule) {
  const MemoryScope scope(MemoryOwner::kOptimizer);
  const Tensor& master = rule.parameter->master;
  moments_.push_back({rule, Tensor::zeros(master.shape(), master.dtype(), master.device()),
                      Tensor::zeros(master.shape(), master.dtype(), master.device())});
}

void AdamW::step(const OptimConfig& config, const Tensor& scalars) {
  const MemoryScope scope(MemoryOwner::kOptimizer);
  list_.operands.clear();
  for (const Moments& one : moments_) {
    const Parameter& parameter = *one.rule.parameter;
    const Tensor gradient = parameter.variable.grad();
    if (!gradient.defined()) continue;
    list_.operands.push_back({.parameter = parameter.master,
                              .gradient = gradient,
                              .m = one.m,
                              .v = one.v,
                              .compute = parameter.compute_copy(),
                              .lr_multiplier = one.rule.lr_multiplier,
                              .weight_decay = one.rule.weight_decay});
  }
  LH_DISPATCH(scalars.device(), "adamw",
              adamw_step(list_,
                         {.learning_rate = config.learning_rate,
                          .beta1 = config.beta1,
                          .beta2 = config.beta2,
                          .eps = config.eps},
                         scalars));
}

void AdamW::append_state(std::vector<NamedTensor>& state) const {
  for (const Moments& one : moments_) {
    state.push_back({one.rule.parameter->name + ".m", one.m});
    state.push_back({one.rule.parameter->name + ".v", one.v});
  }
}

}  // namespace lh
