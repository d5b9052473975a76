// SwiGLU (Shazeer 2020) and the sigmoid output gate, forward and backward, f32 and bf16.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

/// Operands are [rows, cols] with contiguous rows, each its own distance between rows.
template <class T>
struct GateParams {
  const T* gate = nullptr;
  const T* x = nullptr;   // up of SwiGLU, the gated values of the sigmoid gate
  const T* dy = nullptr;  // backward only
  T* y = nullptr;         // forward only
  T* d_gate = nullptr;    // backward only, like dx; they may alias gate and x
  T* dx = nullptr;
  std::int64_t gate_stride = 0, x_stride = 0, dy_stride = 0, y_stride = 0;
  std::int64_t d_gate_stride = 0, dx_stride = 0;
  std::int64_t rows = 0, cols = 0;
};

/// y = silu(gate) x, silu(g) = g sigmoid(g).
template <class T>
void swiglu_fwd(const GateParams<T>& p, xpu::Stream stream);
template <class T>
void swiglu_bwd(const GateParams<T>& p, xpu::Stream stream);

/// y = sigmoid(gate) x.
template <class T>
void sigmoid_gate_fwd(const GateParams<T>& p, xpu::Stream stream);
template <class T>
void sigmoid_gate_bwd(const GateParams<T>& p, xpu::Stream stream);

}  // namespace lh::kernels
