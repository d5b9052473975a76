// The merge of normalised partial outputs by their log-sum-exp:
//   top = max_i lse_i,  w_i = exp(lse_i - top),  out = sum_i w_i out_i / sum_i w_i,  lse = top + log sum_i w_i
// in the order of the parts. With all lse_i = -inf: out 0, lse -inf.
#pragma once
#include "kernels/xpu/xpu.h"

namespace lh::kernels {

/// Four columns of one row. Part i is at out + i out_step and lse[i lse_step]; out of a part whose
/// weight is 0 is not read. The merged lse is written to *merged_lse.
template <class Part>
__device__ inline xpu::Vec<float, 4> merge_columns(const Part* out, std::int64_t out_step,
                                                   const float* lse, std::int64_t lse_step,
                                                   int count, float* merged_lse) {
  constexpr float kLog2E = 1.4426950408889634f;
  constexpr float kInf = __builtin_huge_valf();
  constexpr int kAtOnce = 8;  // loads under way together: a part is far away, and all are needed
  float top = -kInf;
#pragma unroll kAtOnce
  for (int i = 0; i < count; ++i) top = fmaxf(top, lse[i * lse_step]);
  const float base = top == -kInf ? 0.0f : top;
  xpu::Vec<float, 4> sum{};
  float total = 0.0f;
  for (int first = 0; first < count; first += kAtOnce) {
    float weight[kAtOnce];
    xpu::Vec<Part, 4> part[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const int i = first + k;
      weight[k] = i < count ? exp2f((lse[i * lse_step] - base) * kLog2E) : 0.0f;
      // A NaN is not 0 and reaches the result.
      part[k] = weight[k] != 0.0f ? xpu::load_vec<4>(out + i * out_step) : xpu::Vec<Part, 4>{};
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      total += weight[k];
#pragma unroll
      for (int c = 0; c < 4; ++c) sum[c] += weight[k] * xpu::to_float(part[k][c]);
    }
  }
  const float inverse = total == 0.0f ? 0.0f : 1.0f / total;
#pragma unroll
  for (int c = 0; c < 4; ++c) sum[c] *= inverse;
  *merged_lse = total == 0.0f ? -kInf : top + logf(total);
  return sum;
}

}  // namespace lh::kernels
