// Rotation of one token's heads. S is the type of arithmetic (double for double, else float).
#pragma once

#include <cstdint>

#include "backend/cpu/simd.h"

LH_SIMD_DECLARE(
    /// x, y [heads, d]; cosines, sines [d / 2]; sign -1 rotates by the negative angle.
    template <typename T, typename S> void rope(const T* x, const S* cosines, const S* sines,
                                                S sign, T* y, int64_t heads, int64_t d);)
