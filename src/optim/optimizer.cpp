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
  GroupedOptimizer(const OptimConfig& config, ParameterStore& store)
      : Optimizer(config, store.device()) {
    for (const ParamRule& rule : resolve_param_groups(config, store)) {
      if (rule.frozen) continue;
      if (rule.muon) muon_.emplace_back(rule);
      else adamw_.add(rule);
    }
  }

  void update() override {
    const double muon_rate =
        config_.muon.learning_rate > 0 ? config_.muon.learning_rate : config_.learning_rate;
    adamw_.step(config_, scalars_);
    for (MuonState& state : muon_) state.step(config_.muon, muon_rate, scalars_);
  }

  std::vector<NamedTensor> state() override {
    std::vector<NamedTensor> all;
    adamw_.append_state(all);
    for (const MuonState& state : muon_) state.append_state(all);
    return all;
  }

 private:
  AdamW adamw_;
  std::vector<MuonState> muon_;
};

}  // namespace

Optimizer::Optimizer(const OptimConfig& config, Device device) : config_(config) {
  const MemoryScope scope(MemoryOwner::kOptimizer);
  scalars_ = Tensor::zeros({kStepScalars}, DType::kF64, device);
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

std::unique_ptr<Optimizer> make_optimizer(const OptimConfig& config, ParameterStore& store) {
  return std::make_unique<GroupedOptimizer>(config, store);
}

}  // namespace lh
