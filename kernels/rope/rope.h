// Rotary position embedding (Su et al. 2021), pairs (i, i + d/2), f32 and bf16.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

/// y[n, h, i] = x[i] c - x[i + d/2] s, y[i + d/2] = x[i + d/2] c + x[i] s; `inverse` negates s, which
/// is the backward pass. y may be x. A position outside the table makes the token's row NaN.
template <class T>
struct RopeParams {
  const T* x = nullptr;               // [n, heads, d], inner two dimensions contiguous
  T* y = nullptr;                     // likewise
  const float* table = nullptr;       // [positions, d]: d/2 cosines, then d/2 sines
  const std::int32_t* positions = nullptr;  // [n]
  std::int64_t x_stride = 0, y_stride = 0;  // elements between tokens
  std::int64_t n = 0, table_rows = 0;
  int heads = 0, d = 0;  // d even
  bool inverse = false;
};

template <class T>
void rope(const RopeParams<T>& p, xpu::Stream stream);

}  // namespace lh::kernels
