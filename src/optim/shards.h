// Who updates what when processes share the optimizer: ZeRO stage 1 (Rajbhandari et al. 2020), one owner for
// every element of every parameter. An elementwise update may be cut anywhere; Muon needs its matrix whole.
#pragma once

#include <cstdint>
#include <vector>

#include "config/recipe.h"
#include "nn/parameter.h"

namespace lh {

/// An owner among those that share an optimizer; one owns everything.
struct ShardPlace {
  int owner = 0, owners = 1;
};

/// Elements [begin, end) of a parameter in row-major order.
struct ShardPart {
  int64_t begin = 0, end = 0;
  int64_t count() const { return end - begin; }
};

/// A function of the recipe and the parameters' shapes, so the same in every process. Whole matrices go to the
/// owner with the least Newton-Schulz arithmetic so far, the costliest first; what may be cut is cut so that all
/// owners hold as many elements of state as that leaves possible.
class Shards {
 public:
  Shards(const OptimConfig& config, const ParameterStore& store, int owners);

  int owners() const { return owners_; }
  /// Of parameter `index` of the store. Owners' parts follow each other and fill the parameter.
  ShardPart part(size_t index, int owner) const;
  /// The size of every owner's part.
  std::vector<int64_t> counts(size_t index) const;

 private:
  int owners_;
  std::vector<std::vector<int64_t>> ends_;  // by parameter and owner
};

/// That part of a contiguous tensor: a view, a vector unless it is all of it.
Tensor part_of(const Tensor& tensor, const ShardPart& part);

}  // namespace lh
