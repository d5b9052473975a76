// AdamW (Loshchilov & Hutter 2019), all parameters in one pass.
#pragma once

#include "backend/optim.h"
#include "optim/optimizer.h"
#include "optim/param_groups.h"

namespace lh {

class AdamW {
 public:
  /// Allocates the moments of one more parameter.
  void add(const ParamRule& rule);
  /// Updates the parameters that have a gradient; scalars as in backend/optim.h.
  void step(const OptimConfig& config, const Tensor& scalars);
  void append_state(std::vector<NamedTensor>& state) const;

 private:
  struct Moments {
    ParamRule rule;
    Tensor m, v;  // like the master
  };
  std::vector<Moments> moments_;
  AdamWList list_;
};

}  // namespace lh
