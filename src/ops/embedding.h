// Embedding lookup.
#pragma once

#include "autograd/variable.h"

namespace lh {

/// y [n, d] = weight[ids[n]] * scale. weight [vocab, d], ids [n] i32.
Variable embedding(const Variable& weight, const Tensor& ids, double scale = 1);

}  // namespace lh
