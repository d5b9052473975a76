// The same elements under another shape.
#pragma once

#include "autograd/variable.h"

namespace lh {

/// A view; one size may be -1. Needs a contiguous value.
Variable reshape(const Variable& x, const Shape& shape);

}  // namespace lh
