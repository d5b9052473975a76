// Softmax of whole rows, for definitions: attention proper never stores a row (ops/attention.h).
#pragma once

#include "autograd/variable.h"

namespace lh {

/// exp(x_ij + mask_ij) / sum_j exp(x_ij + mask_ij) of x [m, n] f64 on the host; mask is a constant like it. An element of
/// -inf gives 0, and a row of them zeros; a NaN or +inf makes its whole row NaN.
Variable masked_softmax(const Variable& x, const Tensor& mask);

}  // namespace lh
