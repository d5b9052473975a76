// The backward pass.
#pragma once

#include "autograd/variable.h"

namespace lh {

/// Adds d root / d leaf to the gradient of every leaf that `root` depends on. `seed` is the
/// gradient of root (default: one, for a one-element root). History is freed as the pass goes on;
/// a second backward() through it throws.
void backward(const Variable& root, Tensor seed = {});

}  // namespace lh
