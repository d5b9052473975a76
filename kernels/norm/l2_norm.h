// L2 normalisation of rows, forward and backward, f32 and bf16.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

/// y = x / max(|x|, eps), row by row. Rows are contiguous, one after the other.
template <class T>
struct L2NormFwdParams {
  const T* x = nullptr;       // [rows, dim]
  T* y = nullptr;             // [rows, dim]; may be x
  float* inverse = nullptr;   // [rows]: 1 / max(|x|, eps), for the backward pass; or null
  std::int64_t rows = 0;
  int dim = 0;
  float eps = 1e-12f;
};

/// dx = inverse (dy - y (y . dy)); where |x| <= eps the projection is left out.
template <class T>
struct L2NormBwdParams {
  const T* dy = nullptr;           // [rows, dim]
  const T* x = nullptr;            // [rows, dim]
  const float* inverse = nullptr;  // [rows]
  T* dx = nullptr;                 // [rows, dim]; may be dy
  std::int64_t rows = 0;
  int dim = 0;
  float eps = 1e-12f;
};

template <class T>
void l2_norm_fwd(const L2NormFwdParams<T>& p, xpu::Stream stream);
template <class T>
void l2_norm_bwd(const L2NormBwdParams<T>& p, xpu::Stream stream);

}  // namespace lh::kernels
