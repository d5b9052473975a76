// One row of logits at a time: the passes of softmax cross-entropy. S is float or double.
#pragma once

#include <cstdint>

#include "backend/cpu/simd.h"

LH_SIMD_DECLARE(
    /// z[i] = e^(stretch (z[i] - top)) with top the largest z (stretch > 0), or the smallest where
    /// stretch < 0; returns the sum of the new z and writes top.
    template <typename S> S softmax_numerators(S* z, int64_t n, S stretch, S* top);
    /// out = alpha z, rounded to bfloat16.
    void scale_to_bf16(const float* z, float alpha, uint16_t* out, int64_t n);)
