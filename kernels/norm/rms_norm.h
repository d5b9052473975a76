// RMSNorm with the residual addition fused in, forward and backward, for fp32 and bf16.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

/// h = x + residual; y = weight * h / sqrt(mean(h^2) + eps), row by row. Sums are fp32.
template <class T>
struct RmsNormFwdParams {
  const T* x = nullptr;         // [rows, dim]
  const T* residual = nullptr;  // [rows, dim], or null: h is x
  const T* weight = nullptr;    // [dim]
  T* h = nullptr;               // [rows, dim], written when residual is given; may alias residual
  T* y = nullptr;               // [rows, dim]
  float* inv_rms = nullptr;     // [rows], for the backward pass; or null
  int rows = 0, dim = 0;
  float eps = 1e-6f;
};

template <class T>
struct RmsNormBwdParams {
  const T* dy = nullptr;           // [rows, dim]
  const T* h = nullptr;            // [rows, dim], what the forward pass normalised
  const T* weight = nullptr;       // [dim]
  const float* inv_rms = nullptr;  // [rows]
  const T* dh_add = nullptr;       // [rows, dim], gradient that reaches h past the norm; or null
  T* dh = nullptr;                 // [rows, dim], gradient of x and of residual; may alias dh_add
  float* dweight = nullptr;        // [dim]
  bool accumulate_dweight = false;  // add to dweight; else overwrite it
  float* workspace = nullptr;      // rms_norm_bwd_workspace(rows, dim) floats
  int rows = 0, dim = 0;
};

/// Throw xpu::Error when dim is below 1 or too large for shared memory.
template <class T>
void rms_norm_fwd(const RmsNormFwdParams<T>& p, xpu::Stream stream);
template <class T>
void rms_norm_bwd(const RmsNormBwdParams<T>& p, xpu::Stream stream);

std::size_t rms_norm_bwd_workspace(int rows, int dim);  // floats

}  // namespace lh::kernels
