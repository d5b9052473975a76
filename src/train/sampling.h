// Choosing the next token from logits.
#pragma once

#include <cstdint>
#include <span>

#include "base/philox.h"

namespace lh {

struct SamplingOptions {
  double temperature = 1;  // 0: the most likely token
  int64_t top_k = 0;       // keep only the k most likely; 0: all
  double top_p = 1;        // keep the fewest tokens whose probabilities reach p (Holtzman 2019)
};

/// Throws ConfigError naming the option that is out of range.
void check_sampling(const SamplingOptions& options);

/// An index into logits. Ties break towards the smaller index. Throws NonFiniteError on NaN.
int32_t sample_token(std::span<const float> logits, const SamplingOptions& options, Philox& random);

}  // namespace lh
