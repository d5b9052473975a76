// Exact local linear attention over packed sequences, the reference that Parallax approximates.
#pragma once

#include <memory>

#include "autograd/variable.h"
#include "backend/lla.h"

namespace lh {

/// q [nq, heads, d], k, v [nk, kv_heads, d] -> [nq, heads, d_v] (backend/lla.h). For small models: a
/// [d, d] system per query and head, solved on the host for any device.
Variable lla_attention(const Variable& q, const Variable& k, const Variable& v,
                       std::shared_ptr<const AttentionPlan> plan, const LlaOptions& options);

}  // namespace lh
