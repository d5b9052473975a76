// The maximum of a row of logits and the sum of exponentials below it, in one pass (Milakov and
// Gimelshein 2018), one part per thread of a block. For the .cu files of this folder.
#pragma once
#include "kernels/xpu/xpu.h"

namespace lh::kernels {

struct RunningSoftmax {
  float top = -__builtin_huge_valf(), sum = 0.0f;

  /// N logits times `scale`.
  template <int N>
  __device__ void add(const float (&x)[N], float scale) {
    float highest = top;
#pragma unroll
    for (int j = 0; j < N; ++j) highest = fmaxf(highest, scale * x[j]);
    if (highest > top) {
      sum *= expf(top - highest);
      top = highest;
    }
    // While only tokens that are ruled out were seen, -inf - -inf would be NaN; a real NaN stays one.
    const float base = top == -__builtin_huge_valf() ? 0.0f : top;
#pragma unroll
    for (int j = 0; j < N; ++j) sum += expf(scale * x[j] - base);
  }

  /// Makes top and sum those of the whole block; all threads call it. Two barriers.
  __device__ void combine(float* scratch) {
    const float all = xpu::block_max(top, scratch);
    // A thread without logits has top -inf and sum 0, and -inf - -inf would be NaN.
    sum = xpu::block_sum(sum == 0.0f ? 0.0f : sum * expf(top - all), scratch);
    top = all;
  }

  /// Takes in the maximum and sum of other columns.
  __device__ void merge(float other_top, float other_sum) {
    const float all = fmaxf(top, other_top);
    sum = (sum == 0.0f ? 0.0f : sum * expf(top - all)) +
          (other_sum == 0.0f ? 0.0f : other_sum * expf(other_top - all));
    top = all;
  }
};

}  // namespace lh::kernels
