// One row of logits at a time: the passes of softmax losses. S is float or double.
#pragma once

#include <cstdint>

#include "backend/cpu/simd.h"

LH_SIMD_DECLARE(
    /// z[i] = e^(stretch (z[i] - top)) with top the largest z (stretch > 0), or the smallest where
    /// stretch < 0; returns the sum of the new z and writes top.
    template <typename S> S softmax_numerators(S* z, int64_t n, S stretch, S* top);
    /// Largest stretch z[i].
    template <typename S> S largest(const S* z, int64_t n, S stretch);
    /// Sum of e^(stretch z[i] - top).
    template <typename S> S exponential_sum(const S* z, int64_t n, S stretch, S top);
    /// out[i] = e^(stretch z[i] - top); out may be z.
    template <typename S> void exponentials(const S* z, int64_t n, S stretch, S top, S* out);
    /// With log p = stretch t - log_t and log q = stretch s - log_s: s becomes q - p; returns the sum of
    /// p (log p - log q) over p > 0.
    template <typename S>
    S divergence_terms(const S* t, S* s, int64_t n, S stretch, S log_t, S log_s);
    /// out = alpha z, rounded to bfloat16.
    void scale_to_bf16(const float* z, float alpha, uint16_t* out, int64_t n);)
