// Parallax attention over packed sequences (arXiv 2605.29157).
#pragma once

#include <memory>

#include "autograd/variable.h"
#include "backend/parallax.h"

namespace lh {

/// The heads' outputs, differentiable, and what the forward pass left beside them.
struct ParallaxAttention {
  Variable out;
  ParallaxResult result;
};

/// q and probe r [nq, heads, d], k, v [nk, kv_heads, d] -> [nq, heads, d_v]: softmax attention minus
/// the covariance of values and keys times r (backend/parallax.h).
ParallaxAttention parallax_attention(const Variable& q, const Variable& r, const Variable& k,
                                     const Variable& v, std::shared_ptr<const AttentionPlan> plan);

}  // namespace lh
