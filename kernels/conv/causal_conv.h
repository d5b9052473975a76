// Causal depthwise convolution over packed documents, forward and backward, f32 and bf16.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

/// pre[t, c] = bias[c] + sum over j < width of weight[c, j] x[t - (width - 1) + j, c], without the taps
/// before the document's first token; y = silu ? pre sigmoid(pre) : pre.
template <class T>
struct CausalConvParams {
  static constexpr int kMaxWidth = 4;
  const T* x = nullptr;                     // [n, channels]
  const float* weight = nullptr;            // [channels, width]; the last tap is the token itself
  const float* bias = nullptr;              // [channels]; or null
  const std::int32_t* positions = nullptr;  // [n]: of each token in its document
  T* y = nullptr;                           // forward: [n, channels]
  const T* dy = nullptr;                    // backward: [n, channels]
  T* dx = nullptr;                          // backward: [n, channels], written
  float* dweight = nullptr;                 // backward: [channels, width], added to
  float* dbias = nullptr;                   // backward: [channels], added to; or null
  float* workspace = nullptr;               // backward: causal_conv_bwd_workspace floats
  int n = 0, channels = 0, width = 0;       // 1 <= width <= 4
  bool silu = false;
};

template <class T>
void causal_conv_fwd(const CausalConvParams<T>& p, xpu::Stream stream);
template <class T>
void causal_conv_bwd(const CausalConvParams<T>& p, xpu::Stream stream);

std::size_t causal_conv_bwd_workspace(int n, int channels);

}  // namespace lh::kernels
