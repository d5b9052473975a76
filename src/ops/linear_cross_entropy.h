// The language-model head and its loss in one op, so that full logits never exist.
#pragma once

#include <optional>

#include "autograd/variable.h"
#include "ops/head_chunks.h"

namespace lh {

struct LinearCrossEntropy {
  Variable loss_sum;  // [1] f32 (f64 for f64): sum over the targets that are not -1
  Tensor losses;      // [n] f32 (f64): per token, 0 where the target is -1
};

/// logits = logit_scale * x weight^T; cross-entropy with targets [n] (i32, -1: ignored).
/// x [n, d], weight [vocab, d]. The gradient is made in the forward pass, chunk by chunk; `chunks`
/// replaces the cut that the device's budget gives.
LinearCrossEntropy linear_cross_entropy(const Variable& x, const Variable& weight,
                                        const Tensor& targets, double logit_scale = 1,
                                        std::optional<HeadChunks> chunks = std::nullopt);

}  // namespace lh
