// AdamW (Loshchilov & Hutter 2019), for one parameter at a time.
#pragma once

#include "optim/optimizer.h"
#include "optim/param_groups.h"

namespace lh {

class AdamWState {
 public:
  explicit AdamWState(const ParamRule& rule);
  void step(const OptimConfig& config, double learning_rate, double weight_decay_factor,
            double grad_scale, int64_t step);
  void append_state(std::vector<NamedTensor>& state) const;

 private:
  ParamRule rule_;
  Tensor m_, v_;  // like the master
};

}  // namespace lh
