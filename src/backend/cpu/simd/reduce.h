// Reductions of n contiguous elements, summed in double.
#pragma once

#include <cstdint>

#include "backend/cpu/simd.h"

LH_SIMD_DECLARE(
    template <typename T> double sum_of_squares(const T* x, int64_t n);
    template <typename T> double sum(const T* x, int64_t n);
    /// Number of NaN and infinite values.
    template <typename T> int64_t count_non_finite(const T* x, int64_t n);)
