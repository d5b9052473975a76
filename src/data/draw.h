// Draws without replacement, for tasks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/philox.h"

namespace lh {

/// `count` different numbers below `n`, in random order. Time and memory grow with `count` alone.
std::vector<int64_t> draw_distinct(int64_t n, int64_t count, Philox& random);

/// `count` different indices of `weights` (all above 0), ascending, drawn one after another with
/// probabilities in proportion to the weights of what is left.
std::vector<int64_t> draw_weighted(std::span<const double> weights, int64_t count, Philox& random);

}  // namespace lh
