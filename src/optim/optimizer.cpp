#include "optim/optimizer.h"

#include <cmath>

#include "optim/adamw.h"
#include "optim/muon.h"
#include "optim/param_groups.h"

namespace lh {
namespace {

/// AdamW and Muon side by side; either list may be empty.
class GroupedOptimizer final : public Optimizer {
 public:
  GroupedOptimizer(const OptimConfig& config, ParameterStore& store, ShardPlace place)
      : Optimizer(config, store, place) {
    const std::vector<ParamRule> rules = resolve_param_groups(config, store);
    for (size_t i = 0; i < rules.size(); ++i) {
      const ShardPart part = shards_.part(i, place.owner);
      rules[i].parameter->keep_master_part(part.begin, part.end);
      rules[i].parameter->variable.set_frozen(rules[i].frozen);
      if (rules[i].frozen) continue;
      const OwnedParam owned{rules[i], i, part};
      if (rules[i].muon) muon_.emplace_back(owned);
      else adamw_.add(owned);
    }
  }

  void update() override {
    const double muon_rate =
        config_.muon.learning_rate > 0 ? config_.muon.learning_rate : config_.learning_rate;
    adamw_.step(config_, scalars_);
    for (MuonState& state : muon_) state.step(config_.muon, muon_rate, scalars_);
  }

  std::vector<StateTensor> state() override {
    std::vector<StateTensor> all;
    adamw_.append_state(all);
    for (const MuonState& state : muon_) state.append_state(all);
    return all;
  }

 private:
  AdamW adamw_;
  std::vector<MuonState> muon_;
};

}  // namespace

Optimizer::Optimizer(const OptimConfig& config, const ParameterStore& store, ShardPlace place)
    : config_(config), place_(place), shards_(config, store, place.owners) {
  const MemoryScope scope(MemoryOwner::kOptimizer);
  scalars_ = Tensor::zeros({kStepScalars}, DType::kF64, store.device());
}

void Optimizer::prepare(double learning_rate_factor) {
  ++steps_;
  const auto t = static_cast<double>(steps_);
  const std::vector<double> values = {learning_rate_factor, weight_decay_factor_,
                                      1 - std::pow(config_.beta1, t),
                                      1 / std::sqrt(1 - std::pow(config_.beta2, t))};
  scalars_.slice(0, kRateFactor, kStepScalars).copy_bytes_from(Tensor::from(values, {4}));
}

void Optimizer::step(double learning_rate_factor, double grad_scale) {
  prepare(learning_rate_factor);
  this->grad_scale().copy_bytes_from(Tensor::from(std::vector<double>{grad_scale}, {1}));
  update();
}

std::unique_ptr<Optimizer> make_optimizer(const OptimConfig& config, ParameterStore& store,
                                          ShardPlace place) {
  return std::make_unique<GroupedOptimizer>(config, store, place);
}

}  // namespace lh
