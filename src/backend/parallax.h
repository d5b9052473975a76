// Parallax: softmax attention minus the covariance of values and keys along a probe (parameterized
// local linear attention, arXiv 2605.29157). Tiled as backend/attention.h, with the same plans.
//
//   p = softmax_j(scale q k_j)    u_j = r k_j (not scaled)    m = sum_j p_j u_j
//   intercept = sum_j p_j v_j     out = sum_j p_j (1 + m - u_j) v_j
//             = intercept - sum_j p_j (v_j - intercept) (k_j - sum p k)^T r
//
// A probe of zeros gives softmax attention.
#pragma once

#include "backend/attention.h"

namespace lh {

/// The inputs of one call; shapes and strides as in attention_forward, r like q.
struct ParallaxInputs {
  Tensor q, r, k, v;
};

/// What the forward pass leaves for the backward pass.
struct ParallaxResult {
  Tensor out;         // [nq, heads, d_v]
  Tensor intercept;   // likewise: the output of softmax attention
  Tensor lse;         // [nq, heads] f32 (f64 for f64), as of attention_forward
  Tensor probe_mean;  // likewise: m; 0 for a row that sees nothing
};

/// Gradients of the inputs, shaped like them.
struct ParallaxGradients {
  Tensor dq, dr, dk, dv;
};

}  // namespace lh

LH_BACKENDS(
    /// Writes every tensor of `result`, which the caller allocates. Rows outside every segment, and
    /// those that see nothing, get 0 (lse -inf). ShapeError when operands do not fit.
    void parallax_forward(const ParallaxInputs& inputs, const AttentionPlan& plan,
                          ParallaxResult& result);
    /// Writes all gradients; deterministic, sums over a group's query heads in f32 (f64).
    void parallax_backward(const ParallaxInputs& inputs, const ParallaxResult& result,
                           const Tensor& d_out, const AttentionPlan& plan,
                           ParallaxGradients& gradients);)
