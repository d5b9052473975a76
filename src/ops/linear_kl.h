// Distillation through a language-model head: the student's logits, and the teacher's when it is given by
// hidden states, never exist as a whole.
#pragma once

#include <optional>

#include "autograd/variable.h"
#include "ops/head_chunks.h"

namespace lh {

/// The teacher's distribution: its logits, or hidden states and a head that make them. No gradient
/// flows into it.
struct Teacher {
  Tensor logits = {};  // [n, vocab], any floating dtype; or undefined
  Tensor hidden = {}, head = {};  // [n, d_t] and [vocab, d_t] of one dtype; used when logits is undefined
  double logit_scale = 1;         // of hidden head^T
};

struct LinearKl {
  Variable loss_sum;  // [1] f32 (f64 for f64)
  Tensor losses;      // [n] f32 (f64): per token, 0 where the target is -1
};

/// T^2 KL(softmax(teacher / T) || softmax(student / T)) over the whole vocabulary, with student logits
/// logit_scale * x weight^T (Hinton et al. 2015: T^2 keeps the gradient's size). x [n, d], weight
/// [vocab, d]; targets [n] i32 only say which tokens count (-1: not). T > 0. The gradient is made in
/// the forward pass, chunk by chunk.
LinearKl linear_kl(const Variable& x, const Variable& weight, const Teacher& teacher,
                   const Tensor& targets, double temperature = 1, double logit_scale = 1,
                   std::optional<HeadChunks> chunks = std::nullopt);

}  // namespace lh
