// The seam for optimizers: one update of all parameters from their gradients.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "config/recipe.h"
#include "nn/parameter.h"

namespace lh {

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;

  /// Updates every parameter that is not frozen and received a gradient; the others keep their
  /// value and state. Learning rates are multiplied by learning_rate_factor (optim/schedule.h),
  /// gradients by grad_scale (clipping).
  virtual void step(double learning_rate_factor, double grad_scale) = 0;

  /// Weight decay of the steps to come, as a share of the configured one (optim/schedule.h).
  void set_weight_decay_factor(double factor) { weight_decay_factor_ = factor; }

  /// The state tensors, named "<parameter>.<moment>". Handles share storage with the optimizer, so
  /// writing into them restores a checkpoint.
  virtual std::vector<NamedTensor> state() = 0;

  /// Updates made, for bias correction.
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

 protected:
  int64_t steps_ = 0;
  double weight_decay_factor_ = 1;
};

/// AdamW for everything, or Muon for hidden matrices with AdamW for the rest. State is allocated
/// here, so that memory is known before the first step.
std::unique_ptr<Optimizer> make_optimizer(const OptimConfig& config, ParameterStore& store);

}  // namespace lh
