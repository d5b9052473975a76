// Sums over a context-parallel group, of what is small: statistics, not rows.
#pragma once

#include <string>

#include "autograd/variable.h"
#include "dist/communicator.h"

namespace lh {

/// The sum of every process's x, on each. Any shape, the same on all; bf16 is summed in f32. Backward is its transpose, the
/// sum of all gradients: what each process makes of the sum counts. `group` outlives the backward pass.
Variable sum_over_group(const Variable& x, Communicator& group, const std::string& label);

}  // namespace lh
