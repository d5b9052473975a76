// Affine recurrences over a few segments: how states of recurrent mixers pass from one process of a
// context-parallel group to the next.
#pragma once

#include "tensor/dispatch.h"
#include "tensor/tensor.h"

LH_BACKENDS(
    /// States before each of n segments, for h heads with states [k, v]:
    ///   out[0] = 0, out[j + 1] = a[j] out[j] + b[j];
    /// backwards: out[n - 1] = 0, out[j - 1] = a[j]^T out[j] + b[j].
    /// b, out [n, h, k, v] in f32 (f64 on the CPU), contiguous. The transition a [n, h] is a scalar,
    /// [n, h, k] one factor per row, [n, h, k, k] a matrix.
    void affine_fold(const Tensor& a, const Tensor& b, bool backwards, Tensor& out);
    /// da[j] = g[j] s[j]^T as far as a's kind has entries: its matrix, its diagonal, or its trace.
    /// g, s like b; da like a.
    void affine_transition_gradient(const Tensor& g, const Tensor& s, Tensor& da);)
