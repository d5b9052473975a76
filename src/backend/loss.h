// Linear + cross-entropy in chunks of tokens: the logits of the whole batch never exist.
#pragma once

#include "tensor/dispatch.h"
#include "tensor/tensor.h"

namespace lh {

struct LinearCrossEntropyOptions {
  double logit_scale = 1;   // logits = logit_scale * x w^T (muP: dim_model_base / hidden_size)
  double grad_scale = 1;    // gradients are those of grad_scale * sum of the losses
  int64_t chunk_tokens = 0;  // 0: chosen by the backend
};

}  // namespace lh

LH_BACKENDS(
    /// losses[n] = logsumexp(z[n]) - z[n][targets[n]], z = logit_scale x w^T; 0 where target is -1.
    /// x [n, d], w [vocab, d] (one floating dtype), targets [n] i32, losses [n] f32 (f64 for f64).
    /// When dx is defined the gradient is computed in the same pass: dx [n, d] written,
    /// d_weight [vocab, d] (f32 or f64) added to. Loss arithmetic in f32 (f64 for f64).
    void linear_cross_entropy(const Tensor& x, const Tensor& w, const Tensor& targets,
                              const LinearCrossEntropyOptions& options, Tensor& losses, Tensor* dx,
                              Tensor* d_weight);)
