// Parts of tensors and what they make together.
#pragma once

#include <vector>

#include "autograd/variable.h"

namespace lh {

/// A copy of elements [begin, end) of dimension `dim`, with the same rank.
Variable slice(const Variable& x, int dim, int64_t begin, int64_t end);

/// The parts one after the other along `dim`; their other sizes, dtypes and devices are equal.
Variable concat(const std::vector<Variable>& parts, int dim);

}  // namespace lh
