// Matrix products. Dense GEMM goes to the vendor library (oneDNN or Eigen on the CPU).
#pragma once

#include "tensor/dispatch.h"
#include "tensor/tensor.h"

LH_BACKENDS(
    /// c = op(a) op(b) + (accumulate ? c : 0), op = transpose when the flag is set.
    /// a [m, k] (or [k, m] when trans_a), b [k, n] (or [n, k]), c [m, n]; inner stride 1, any row
    /// stride. a and b share a dtype (f32, bf16, f64); c is that dtype or, for bf16, f32. Sums in
    /// f32 (f64 for f64). bias [n] of c's dtype, when defined, is added to every row before c is
    /// rounded.
    void gemm(const Tensor& a, bool trans_a, const Tensor& b, bool trans_b, Tensor& c,
              bool accumulate, const Tensor& bias = Tensor());
    /// Gradients of y = x w^T + bias for dy [m, n], x [m, k]: d_weight [n, k] = dy^T x +
    /// (accumulate ? d_weight : 0), types as in gemm; d_bias [n] (f32, or f64 for f64) += column sums
    /// of dy, contiguous. Deterministic.
    void gemm_bias_backward(const Tensor& dy, const Tensor& x, Tensor& d_weight, bool accumulate,
                            Tensor& d_bias);
    /// y[r, n] = x[r, k] w[n, k]^T for a few rows r (decoding): one pass over w at memory speed.
    void gemv(const Tensor& x, const Tensor& w, Tensor& y);
    /// The memory that all products of a device share as long as the process lives, for a plan to hold;
    /// undefined where there is none.
    void shared_workspace(Device device, Tensor& result);)
