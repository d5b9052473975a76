// out = alpha a + beta b and its special cases, over n contiguous elements of f32 or bf16. Out may
// alias a or b.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

/// Writes the pattern `bits` (element_bytes of 1, 2, 4 or 8) n times.
void fill(void* out, std::uint64_t bits, int element_bytes, std::int64_t n, xpu::Stream stream);

template <class T>
void add_scaled(const T* a, float alpha, const T* b, float beta, T* out, std::int64_t n,
                xpu::Stream stream);
template <class T>
void scale(const T* a, float alpha, T* out, std::int64_t n, xpu::Stream stream);

/// out = (accumulate ? out : 0) + alpha[0] a; alpha is on the device.
template <class T>
void scale_by(const T* a, const float* alpha, bool accumulate, T* out, std::int64_t n,
              xpu::Stream stream);

template <class T>
void multiply(const T* a, const T* b, T* out, std::int64_t n, xpu::Stream stream);

}  // namespace lh::kernels
