// Softmax attention over packed sequences.
#pragma once

#include <memory>

#include "autograd/variable.h"
#include "backend/attention.h"

namespace lh {

/// q [nq, heads, d], k, v [nk, kv_heads, d] -> [nq, heads, d_v]. The plan says which rows see
/// which (backend/attention.h); it is shared by the layers of a step and kept for backward.
/// bias [nk, kv_heads] f32 (f64 for f64), when defined, is added to the scaled scores outside
/// plan->mask.bias_window; -inf closes a key.
Variable attention(const Variable& q, const Variable& k, const Variable& v,
                   std::shared_ptr<const AttentionPlan> plan, const Variable& bias = {});

}  // namespace lh
