// Root mean square layer normalisation (Zhang & Sennrich 2019).
#pragma once

#include "autograd/variable.h"

namespace lh {

/// y = x / sqrt(mean(x^2) + eps) * weight over the last dimension. x [..., d], weight [d].
/// Its result is recomputed, not stored, where a later op keeps it for backward.
Variable rms_norm(const Variable& x, const Variable& weight, double eps);

}  // namespace lh
