// Optimizer updates over one parameter tensor; masters and moments are f32 (or f64 in tests).
#pragma once

#include "tensor/dispatch.h"
#include "tensor/tensor.h"

namespace lh {

struct AdamWStep {
  double learning_rate, beta1, beta2, eps, weight_decay;
  int64_t step;       // from 1, for bias correction
  double grad_scale;  // gradients are multiplied by this first (clipping, loss scaling)
};

}  // namespace lh

LH_BACKENDS(
    /// Decoupled weight decay (Loshchilov & Hutter 2019): m, v moments, then
    /// p -= lr (m_hat / (sqrt(v_hat) + eps) + weight_decay p). `compute`, when defined, receives p
    /// rounded to its dtype (bf16 copy used by the model).
    void adamw_step(Tensor& parameter, const Tensor& gradient, Tensor& m, Tensor& v,
                    const AdamWStep& step, Tensor* compute);
    /// p = p (1 - lr weight_decay) - lr update, and the compute copy (Muon, SGD).
    void apply_update(Tensor& parameter, const Tensor& update, double learning_rate,
                      double weight_decay, Tensor* compute);)
