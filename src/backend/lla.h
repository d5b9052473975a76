// Local linear attention (arXiv 2510.01450), exact: for every query a ridge regression of values on keys
// with the softmax weights, read at the query. In closed form,
//   p = softmax_j(scale q k_j),   C = covariance of the keys under p,   k_mean = sum p k
//   probe = (C + ridge I)^-1 (k_mean - q),   out = sum_j p_j (1 - (k_j - k_mean) probe) v_j,
// which is Parallax (parallax.h) with the best probe. A reference for small models: one factorisation
// of a [d, d] matrix per query and head, all arithmetic in f64, on the host for any device.
#pragma once

#include "backend/attention.h"

namespace lh {

struct LlaOptions {
  /// Relative to weights that sum to one.
  double ridge = 10;
  /// Takes ridge times the sum of the unnormalised weights as a constant in the gradient, as the
  /// authors' released code does; false: the exact gradient.
  bool frozen_ridge = false;
};

/// Gradients of q, k and v, shaped like them.
struct LlaGradients {
  Tensor dq, dk, dv;
};

}  // namespace lh

LH_BACKENDS(
    /// Shapes as in attention_forward. Rows outside every segment, and those that see nothing, get 0.
    void lla_forward(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionPlan& plan,
                     const LlaOptions& options, Tensor& out);
    /// Writes all gradients; deterministic. Everything is recomputed from the inputs.
    void lla_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& d_out,
                      const AttentionPlan& plan, const LlaOptions& options,
                      LlaGradients& gradients);)
