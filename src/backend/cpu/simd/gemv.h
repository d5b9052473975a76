// Dot products of rows of a weight matrix with one vector, at memory speed.
#pragma once

#include <cstdint>

#include "backend/cpu/simd.h"

LH_SIMD_DECLARE(
    /// y[i] = sum_j x[j] w[i * stride + j] for i < rows; x [n] f32, w f32 or bfloat16 bits, sums and
    /// y in f32.
    template <typename T> void dot_rows(const float* x, const T* w, int64_t stride, int64_t rows,
                                        int64_t n, float* y);)
