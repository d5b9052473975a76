// Utility gates of self-pruned key-value attention: logits to the bias of attention, f32 and bf16.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

/// Contiguous arrays of `size` elements.
template <class T>
struct UtilityGateParams {
  const T* logits = nullptr;
  float* bias = nullptr;         // forward only
  const float* dbias = nullptr;  // backward only
  T* d_logits = nullptr;         // backward only; may alias logits
  float alpha = 0.0f;            // 0: soft
  float threshold = 0.5f;
  bool hard = false;  // 0 or -inf by the threshold alone, without a gradient
  std::int64_t size = 0;
};

/// bias = log((1 - alpha) u + alpha [u >= threshold] + 1e-8), u = sigmoid(logit); or hard.
template <class T>
void utility_gate_fwd(const UtilityGateParams<T>& p, xpu::Stream stream);
template <class T>
void utility_gate_bwd(const UtilityGateParams<T>& p, xpu::Stream stream);

}  // namespace lh::kernels
