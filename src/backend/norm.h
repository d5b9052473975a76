// RMSNorm (Zhang & Sennrich 2019): y = x / sqrt(mean(x^2) + eps) * weight, over the last dimension.
#pragma once

#include "tensor/dispatch.h"
#include "tensor/tensor.h"

LH_BACKENDS(
    /// x, y [rows, d]; weight [d] of any floating dtype; rstd [rows] f32 (f64 for f64) out: the
    /// reciprocal root mean square. Per-head QK-norm is the same call with rows = tokens * heads.
    void rms_norm_forward(const Tensor& x, const Tensor& weight, double eps, Tensor& y,
                          Tensor& rstd);
    /// dx [rows, d] written (accumulate_dx: added to); d_weight [d] (f32 or f64) added to.
    /// Deterministic: the sum over rows has a fixed order whatever the number of threads.
    void rms_norm_backward(const Tensor& x, const Tensor& weight, const Tensor& rstd,
                           const Tensor& dy, Tensor& dx, bool accumulate_dx, Tensor& d_weight);)
