// The bias of a linear layer and its gradient, f32 and bf16.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

/// x [rows, cols] += bias [cols], rows `stride` apart.
template <class T>
void bias_add(T* x, std::int64_t stride, const T* bias, std::int64_t rows, std::int64_t cols,
              xpu::Stream stream);

/// dbias [cols] += column sums of dy [rows, cols]; `workspace`: bias_bwd_workspace floats.
template <class T>
void bias_bwd(const T* dy, std::int64_t stride, float* dbias, float* workspace, std::int64_t rows,
              std::int64_t cols, xpu::Stream stream);
std::size_t bias_bwd_workspace(std::int64_t rows, std::int64_t cols);

}  // namespace lh::kernels
