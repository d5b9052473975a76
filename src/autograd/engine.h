// The backward pass.
#pragma once

#include <functional>
#include <unordered_set>

#include "autograd/variable.h"

namespace lh {

/// Follows one backward(), on its thread.
struct BackwardWatch {
  /// Before it begins: the leaves that it may reach; it adds to no other.
  std::function<void(const std::unordered_set<const LeafGradient*>&)> reaches;
  /// No more will be added to this one. Not called for leaves that get nothing because no gradient
  /// flows to all of their uses.
  std::function<void(const LeafGradient*)> is_final;
};

/// Adds d root / d leaf to the gradient of every leaf that `root` depends on. `seed` is the
/// gradient of root (default: one, for a one-element root). History is freed as the pass goes on;
/// a second backward() through it throws.
void backward(const Variable& root, Tensor seed = {}, const BackwardWatch* watch = nullptr);

}  // namespace lh
