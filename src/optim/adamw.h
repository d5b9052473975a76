// AdamW (Loshchilov & Hutter 2019), all parameters in one pass.
#pragma once

#include "backend/optim.h"
#include "optim/optimizer.h"
#include "optim/param_groups.h"

namespace lh {

class AdamW {
 public:
  /// Allocates the moments of one more parameter's part.
  void add(const OwnedParam& owned);
  /// Updates the parts whose parameters have a gradient; scalars as in backend/optim.h.
  void step(const OptimConfig& config, const Tensor& scalars);
  void append_state(std::vector<StateTensor>& state) const;

 private:
  struct Moments {
    OwnedParam owned;
    Tensor m, v;  // like part_of(master)
  };
  std::vector<Moments> moments_;
  AdamWList list_;
};

}  // namespace lh
