// Optimizer updates over n contiguous elements, one pass over memory. S is float or double. copy,
// when not null, receives the new parameter.
#pragma once

#include <cstdint>

#include "backend/cpu/simd.h"

namespace lh::cpu {

/// Coefficients of one AdamW step, worked out once per tensor.
template <typename S>
struct AdamWCoefficients {
  S grad_scale, beta1, beta2;
  S step_size;      // learning rate / (1 - beta1^step)
  S root_v_scale;   // 1 / sqrt(1 - beta2^step)
  S eps;
  S keep;           // 1 - learning rate * weight decay
};

}  // namespace lh::cpu

LH_SIMD_DECLARE(
    template <typename S, typename T> void adamw_step(S* p, const S* g, S* m, S* v, T* copy,
                                                      const AdamWCoefficients<S>& c, int64_t n);
    template <typename S, typename T> void apply_update(S* p, const S* update, S keep,
                                                        S learning_rate, T* copy, int64_t n);)
