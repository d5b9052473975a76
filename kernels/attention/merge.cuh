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
  float top = -kInf;
  for (int i = 0; i < count; ++i) top = fmaxf(top, lse[i * lse_step]);
  const float base = top == -kInf ? 0.0f : top;
  xpu::Vec<float, 4> sum{};
  float total = 0.0f;
  for (int i = 0; i < count; ++i) {
    const float weight = exp2f((lse[i * lse_step] - base) * kLog2E);
    if (weight == 0.0f) continue;  // not NaN: a NaN reaches the result
    total += weight;
    const auto part = xpu::load_vec<4>(out + i * out_step);
#pragma unroll
    for (int c = 0; c < 4; ++c) sum[c] += weight * xpu::to_float(part[c]);
  }
  const float inverse = total == 0.0f ? 0.0f : 1.0f / total;
#pragma unroll
  for (int c = 0; c < 4; ++c) sum[c] *= inverse;
  *merged_lse = total == 0.0f ? -kInf : top + logf(total);
  return sum;
}

}  // namespace lh::kernels
