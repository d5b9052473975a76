// Products of one vector with rows of a matrix, at memory speed: weights and caches of decoding.
#pragma once

#include <cstdint>

#include "backend/cpu/simd.h"

LH_SIMD_DECLARE(
    /// y[i] = sum_j x[j] w[i * stride + j] for i < rows; x [n] f32, w f32 or bfloat16 bits, sums and
    /// y in f32.
    template <typename T> void dot_rows(const float* x, const T* w, int64_t stride, int64_t rows,
                                        int64_t n, float* y);
    /// y[j] += sum_i p[i] w[i * stride + j] for j < n, i < rows in order.
    template <typename T> void add_weighted_rows(const float* p, const T* w, int64_t stride,
                                                 int64_t rows, int64_t n, float* y);)
