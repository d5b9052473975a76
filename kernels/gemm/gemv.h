// Products of a few rows with a weight matrix (decoding), bound by reading the weight once.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

constexpr int kMaxGemvRows = 8;

/// y [rows, n] = x [rows, k] w [n, k]^T, rows <= kMaxGemvRows, x and y contiguous, rows of w
/// `w_stride` apart. Sums in fp32.
template <class T>
void gemv(const T* x, const T* w, T* y, int rows, int n, int k, std::int64_t w_stride,
          xpu::Stream stream);

}  // namespace lh::kernels
