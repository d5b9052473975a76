// RMSNorm over rows of d contiguous elements. S is the type of arithmetic (double for double, else
// float); weights come converted to it.
#pragma once

#include <cstdint>

#include "backend/cpu/simd.h"

LH_SIMD_DECLARE(
    template <typename T, typename S> void rms_norm_forward(const T* x, const S* weight, S eps,
                                                            T* y, S* rstd, int64_t rows, int64_t d);
    /// d_weight [d] is added to, row after row.
    template <typename T, typename S> void rms_norm_backward(const T* x, const S* weight,
                                                             const S* rstd, const T* dy, T* dx,
                                                             bool accumulate_dx, S* d_weight,
                                                             int64_t rows, int64_t d);)
