// The seam for optimizers: one update of all parameters from their gradients.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/optim.h"
#include "config/recipe.h"
#include "nn/parameter.h"
#include "optim/shards.h"

namespace lh {

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

/// A tensor of an optimizer's state, named "<parameter>.<moment>": like the master, or the owner's part of it as
/// a vector, which may be empty.
struct StateTensor : NamedTensor {
  size_t parameter = 0;  // its index in the store
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;

  /// Counts one more update and sends what its arithmetic needs (learning rates are multiplied by
  /// learning_rate_factor, optim/schedule.h) to the device, in stream order.
  void prepare(double learning_rate_factor);

  /// [1] f64 on the device: gradients are multiplied by it (clipping). update() reads what was last
  /// written there, and does nothing when that is not finite.
  Tensor grad_scale() const { return scalars_.slice(0, kGradScale, kGradScale + 1); }

  /// Updates every parameter that is not frozen and received a gradient, as far as it is this owner's;
  /// the others keep their value and state. Neither waits for the device nor copies to it once the gradients' addresses
  /// are known.
  virtual void update() = 0;

  /// prepare() and update() with a gradient scale known to the host.
  void step(double learning_rate_factor, double grad_scale);

  /// Weight decay of the steps to come, as a share of the configured one (optim/schedule.h).
  void set_weight_decay_factor(double factor) { weight_decay_factor_ = factor; }

  /// The state tensors, the same ones in one order for every owner. Handles share storage with the
  /// optimizer, so writing into them restores a checkpoint.
  virtual std::vector<StateTensor> state() = 0;

  const OptimConfig& config() const { return config_; }
  /// Who owns what; this optimizer holds and updates the part of owner().
  const Shards& shards() const { return shards_; }
  int owner() const { return place_.owner; }
  bool is_shared() const { return place_.owners > 1; }

  /// Updates made, for bias correction.
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

 protected:
  Optimizer(const OptimConfig& config, const ParameterStore& store, ShardPlace place);

  OptimConfig config_;
  ShardPlace place_;
  Shards shards_;
  Tensor scalars_;  // as in backend/optim.h

 private:
  int64_t steps_ = 0;
  double weight_decay_factor_ = 1;
};

/// AdamW for everything, or Muon for hidden matrices with AdamW for the rest. State is allocated
/// here, so that memory is known before the first step, and for the parts of `place` alone; where there are compute
/// copies, masters are kept for these parts alone too.
std::unique_ptr<Optimizer> make_optimizer(const OptimConfig& config, ParameterStore& store,
                                          ShardPlace place = {});

}  // namespace lh
