// Affine map of the last dimension.
#pragma once

#include "autograd/variable.h"

namespace lh {

/// y [n, out] = x [n, in] weight[out, in]^T (+ bias [out] when defined). One floating dtype.
Variable linear(const Variable& x, const Variable& weight, const Variable& bias = {});

}  // namespace lh
