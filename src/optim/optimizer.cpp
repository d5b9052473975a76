#include "optim/optimizer.h"

#include "optim/adamw.h"
#include "optim/muon.h"
#include "optim/param_groups.h"

namespace lh {
namespace {

/// AdamW and Muon side by side; either list may be empty.
class GroupedOptimizer final : public Optimizer {
 public:
  GroupedOptimizer(const OptimConfig& config, ParameterStore& store) : config_(config) {
    for (const ParamRule& rule : resolve_param_groups(config, store)) {
      if (rule.frozen) continue;
      if (rule.muon) muon_.emplace_back(rule);
      else adamw_.emplace_back(rule);
    }
  }

  void step(double learning_rate_factor, double grad_scale) override {
    ++steps_;
    const double muon_rate =
        config_.muon.learning_rate > 0 ? config_.muon.learning_rate : config_.learning_rate;
    for (AdamWState& state : adamw_)
      state.step(config_, config_.learning_rate * learning_rate_factor, weight_decay_factor_,
                 grad_scale, steps_);
    for (MuonState& state : muon_)
      state.step(config_.muon, muon_rate * learning_rate_factor, weight_decay_factor_, grad_scale);
  }

  std::vector<NamedTensor> state() override {
    std::vector<NamedTensor> all;
    for (const AdamWState& state : adamw_) state.append_state(all);
    for (const MuonState& state : muon_) state.append_state(all);
    return all;
  }

 private:
  OptimConfig config_;
  std::vector<AdamWState> adamw_;
  std::vector<MuonState> muon_;
};

}  // namespace

std::unique_ptr<Optimizer> make_optimizer(const OptimConfig& config, ParameterStore& store) {
  return std::make_unique<GroupedOptimizer>(config, store);
}

}  // namespace lh
