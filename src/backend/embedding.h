// Embedding lookup and its gradient.
#pragma once

#include "tensor/dispatch.h"
#include "tensor/tensor.h"

LH_BACKENDS(
    /// y[n] = weight[ids[n]] * scale. weight [vocab, d], ids [n] i32, y [n, d]. An id outside the
    /// vocabulary throws with its position.
    void embedding_forward(const Tensor& weight, const Tensor& ids, double scale, Tensor& y);
    /// d_weight[ids[n]] += dy[n] * scale; d_weight [vocab, d] f32 or f64. Deterministic: rows of
    /// one id are added in the order of n.
    void embedding_backward(const Tensor& ids, const Tensor& dy, double scale, Tensor& d_weight);)
