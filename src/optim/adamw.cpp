#include "optim/adamw.h"

namespace lh {

void AdamW::add(const OwnedParam& owned) {
  const MemoryScope scope(MemoryOwner::kOptimizer);
  const Tensor like = part_of(owned.rule.parameter->master, owned.part);
  moments_.push_back({owned, Tensor::zeros(like.shape(), like.dtype(), like.device()),
                      Tensor::zeros(like.shape(), like.dtype(), like.device())});
}

void AdamW::step(const OptimConfig& config, const Tensor& scalars) {
  const MemoryScope scope(MemoryOwner::kOptimizer);
  list_.operands.clear();
  for (const Moments& one : moments_) {
    const auto& [rule, index, part] = one.owned;
    const Tensor gradient = rule.parameter->variable.grad();
    if (!gradient.defined() || part.count() == 0) continue;
    const Tensor compute = rule.parameter->compute_copy();
    list_.operands.push_back({.parameter = part_of(rule.parameter->master, part),
                              .gradient = part_of(gradient, part),
                              .m = one.m,
                              .v = one.v,
                              .compute = compute.defined() ? part_of(compute, part) : compute,
                              .lr_multiplier = rule.lr_multiplier,
                              .weight_decay = rule.weight_decay});
  }
  LH_DISPATCH(scalars.device(), "adamw",
              adamw_step(list_,
                         {.learning_rate = config.learning_rate,
                          .beta1 = config.beta1,
                          .beta2 = config.beta2,
                          .eps = config.eps},
                         scalars));
}

void AdamW::append_state(std::vector<StateTensor>& state) const {
  for (const Moments& one : moments_) {
    const std::string& name = one.owned.rule.parameter->name;
    state.push_back({{name + ".m", one.m}, one.owned.index});
    state.push_back({{name + ".v", one.v}, one.owned.index});
  }
}

}  // namespace lh
