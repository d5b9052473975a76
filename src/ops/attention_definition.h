// What attention() and parallax_attention() compute, written down in plain ops that store every score: the oracle of
// the tiled forms. On the host and in f64 whatever the operands are, so no kernel is part of it.
#pragma once

#include "ops/parallax_attention.h"

namespace lh {

/// Whether attention() and parallax_attention() are these definitions: LH_NO_FUSED=1, for bug hunts. ConfigError for any
/// value but 0 and 1. Caches of single tokens keep their decoding kernels.
bool definitions_chosen();
void choose_definitions(bool chosen);

/// As attention(). Keeps several [queries, keys] of every head until backward.
Variable attention_definition(const Variable& q, const Variable& k, const Variable& v,
                              const AttentionPlan& plan, const Variable& bias = {});

/// As parallax_attention(), but that lse and probe_mean of the result are undefined.
ParallaxAttention parallax_definition(const Variable& q, const Variable& r, const Variable& k,
                                      const Variable& v, const AttentionPlan& plan);

}  // namespace lh
