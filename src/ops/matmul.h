// The product of two matrices that both want gradients.
#pragma once

#include "autograd/variable.h"

namespace lh {

/// a [m, k] times b [k, n], or b [n, k] transposed -> [m, n]. One floating dtype.
Variable matmul(const Variable& a, const Variable& b, bool transpose_b = false);

}  // namespace lh
