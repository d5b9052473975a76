// Optimizer updates of one parameter tensor, arithmetic in f32.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

/// Coefficients of one AdamW step (Loshchilov and Hutter 2019), bias corrections folded in.
struct AdamWCoefficients {
  float grad_scale, beta1, beta2;
  float step_size;     // learning rate / (1 - beta1^t)
  float root_v_scale;  // 1 / sqrt(1 - beta2^t)
  float eps;
  float keep;  // 1 - learning rate * weight decay
};

/// g = grad_scale g; m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
/// p = keep p - step_size m / (sqrt(v) root_v_scale + eps). `compute` [n] receives p rounded; or null.
void adamw_step(float* p, const float* g, float* m, float* v, xpu::bf16* compute,
                const AdamWCoefficients& c, std::int64_t n, xpu::Stream stream);

/// p = keep p - learning_rate update, and the rounded copy.
void apply_update(float* p, const float* update, float keep, float learning_rate,
                  xpu::bf16* compute, std::int64_t n, xpu::Stream stream);

}  // namespace lh::kernels
