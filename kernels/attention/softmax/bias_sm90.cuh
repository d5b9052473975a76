// A bias per key in the Hopper passes. Over queries: the producer, a warp then, hands each key tile over
// with its bias. Over keys: a thread's two rows are keys, whose bias it keeps.
#pragma once
#include "kernels/attention/softmax/tile_sm90.cuh"

namespace lh::kernels::softmax_sm90 {

/// A warp writes the bias of a tile, of which `keys` are in the segment, in units of log 2, and
/// arrives.
template <int kN>
__device__ inline void pass_bias(float* tile, const float* bias, std::int64_t stride, int keys,
                                 Mbarrier* full) {
#pragma unroll
  for (int c = threadIdx.x % 32; c < kN; c += 32) {
    tile[c] = c < keys ? bias[c * stride] * kLog2E : 0.0f;
  }
  xpu::mbarrier_arrive(full);
}

/// Scores become units of log 2, with the bias where there is one. A thread's rows are the queries at
/// `position` and 8 further.
template <int kN>
__device__ inline void add_bias(float (&score)[kN / 2], float to_log2, const float* bias,
                                BiasPairs pairs, int bias_window, int position, int key) {
  const int column = threadIdx.x % 4 * 2;
  if (pairs == BiasPairs::kNone) {
#pragma unroll
    for (int j = 0; j < kN / 2; ++j) score[j] *= to_log2;
    return;
  }
  const bool all = pairs == BiasPairs::kAll;
#pragma unroll
  for (int j = 0; j < kN / 8; ++j) {
    const auto add = xpu::load_vec<2>(bias + 8 * j + column);
    if (all) {
#pragma unroll
      for (int e = 0; e < 4; ++e) score[4 * j + e] = score[4 * j + e] * to_log2 + add[e % 2];
    } else {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int distance = position + e / 2 * 8 - key - 8 * j - column - e % 2;
        score[4 * j + e] =
            score[4 * j + e] * to_log2 + (distance >= bias_window ? add[e % 2] : 0.0f);
      }
    }
  }
}

/// Pair j of a thread whose rows are keys, `distance` being that of pair 0.
XPU_HD int pair_distance(int distance, int j) {
  return distance + j / 4 * 8 + j % 2 - j / 2 % 2 * 8;
}

/// add_bias for rows of keys: bias of a thread's key and of that 8 further.
template <int kN>
__device__ inline void add_key_bias(float (&score)[kN / 2], float to_log2, const float (&bias)[2],
                                    BiasPairs pairs, int bias_window, int distance) {
  if (pairs == BiasPairs::kSome) {
#pragma unroll
    for (int j = 0; j < kN / 2; ++j) {
      const bool outside = pair_distance(distance, j) >= bias_window;
      score[j] = score[j] * to_log2 + (outside ? bias[j / 2 % 2] : 0.0f);
    }
    return;
  }
  const bool all = pairs == BiasPairs::kAll;
  const float add[2] = {all ? bias[0] : 0.0f, all ? bias[1] : 0.0f};
#pragma unroll
  for (int j = 0; j < kN / 2; ++j) score[j] = score[j] * to_log2 + add[j / 2 % 2];
}

/// Adds a thread's ds to the sums of its two keys, where the pair has a bias.
template <int kN>
__device__ inline void sum_key_bias(float (&dbias)[2], const float (&ds)[kN / 2], BiasPairs pairs,
                                    int bias_window, int distance) {
  if (pairs == BiasPairs::kSome) {
#pragma unroll
    for (int j = 0; j < kN / 2; ++j) {
      if (pair_distance(distance, j) >= bias_window) dbias[j / 2 % 2] += ds[j];
    }
  } else if (pairs == BiasPairs::kAll) {
#pragma unroll
    for (int j = 0; j < kN / 2; ++j) dbias[j / 2 % 2] += ds[j];
  }
}

}  // namespace lh::kernels::softmax_sm90
