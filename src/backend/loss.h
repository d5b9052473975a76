// Losses over rows of logits. ops/ cuts tokens and vocabulary into chunks around them, so that the
// logits of a batch never exist.
#pragma once

#include "tensor/dispatch.h"
#include "tensor/tensor.h"

namespace lh {

/// Columns [first, first + logits.size(1)) of a vocabulary of `vocab`.
struct VocabularyChunk {
  int64_t first = 0, vocab = 0;
};

}  // namespace lh

LH_BACKENDS(
    /// Cross-entropy over whole rows: with z = logit_scale * logits, losses[n] = logsumexp(z[n]) -
    /// z[n][targets[n]], and d_logits = logit_scale (softmax(z) - onehot(target)) when defined; both
    /// are 0 where the target is -1. logits [n, vocab] f32 (f64) are overwritten; targets [n] i32;
    /// losses [n] like logits; d_logits [n, vocab] bf16, or the logits tensor itself.
    /// Targets outside the vocabulary: ShapeError on the CPU, a loss of NaN on a device.
    void cross_entropy(Tensor& logits, const Tensor& targets, double logit_scale, Tensor& losses,
                       Tensor* d_logits);
    /// The same a chunk of columns at a time, first pass: takes a chunk into the running softmax of
    /// each row. statistics [3, n] f32 (f64): largest z, sum of e^(z - largest), z of the target. The
    /// chunk with first = 0 starts them, the last one (first + columns = vocab) leaves them ready.
    /// targets may be undefined (then there is no third row's meaning).
    void softmax_statistics(const Tensor& logits, const VocabularyChunk& chunk, const Tensor& targets,
                            double logit_scale, Tensor& statistics);
    /// losses from statistics that are ready.
    void cross_entropy_losses(const Tensor& statistics, const Tensor& targets, Tensor& losses);
    /// Second pass: d_logits of a chunk, as in cross_entropy. The logits are overwritten.
    void cross_entropy_gradient(const Tensor& logits, const VocabularyChunk& chunk,
                                const Tensor& targets, double logit_scale, const Tensor& statistics,
                                Tensor& d_logits);
    /// Second pass of distillation. With p, q the softmax of the teacher's and student's logits over
    /// the temperature T (statistics with logit_scale 1 / T): losses[n] = (first chunk ? 0 : losses[n]) +
    /// T^2 sum_chunk p (log p - log q), d_student = T (q - p) when defined (Hinton et al. 2015). Both
    /// are 0 where the target is -1. The student's logits are overwritten.
    void kl_divergence(const Tensor& teacher, const Tensor& student, const VocabularyChunk& chunk,
                       const Tensor& targets, double temperature, const Tensor& teacher_statistics,
                       const Tensor& student_statistics, Tensor& losses, Tensor* d_student);)
