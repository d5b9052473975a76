// The end of a block of parallax_decode: its warps' parts of both channels become one, and the last block
// of a slot makes one of all splits' (decode/split.cuh). A part is normalised by itself: lse, mean of u,
// intercept, and correction = sum p (u - mean) v / sum p, so that
//   w_i = exp(lse_i - max lse) / sum,  mean = sum_i w_i mean_i,  intercept = sum_i w_i intercept_i
//   correction = sum_i w_i (correction_i + (mean_i - mean) intercept_i),  out = intercept - correction
// in the order of the parts: covariances of parts add up like that without losing digits (Chan et al.
// 1979), whatever center each part had.
#pragma once
#include "kernels/attention/decode/split.cuh"
#include "kernels/attention/parallax.h"

namespace lh::kernels::parallax {

constexpr int kRows = ParallaxDecodeParams<float>::kRows;

/// Part i of four columns of a row: intercept[i step], correction[i step], lse[i stat_step],
/// mean[i stat_step].
struct DecodeParts {
  const float *intercept, *correction, *lse, *mean;
  std::int64_t step, stat_step;
  int count;
};

struct DecodeColumns {
  xpu::Vec<float, 4> intercept, correction;
  float lse, mean;
};

/// A part that saw nothing (lse -inf) has weight 0 and is not read.
__device__ inline DecodeColumns merge_parts(const DecodeParts& parts) {
  constexpr int kAtOnce = 4;  // loads under way together
  float top = -decode::kInf;
  for (int i = 0; i < parts.count; ++i) top = fmaxf(top, parts.lse[i * parts.stat_step]);
  const float base = top == -decode::kInf ? 0.0f : top;
  const auto weight_of = [&](int i) {
    return exp2f((parts.lse[i * parts.stat_step] - base) * decode::kLog2E);
  };
  float total = 0.0f, mean = 0.0f;
  for (int i = 0; i < parts.count; ++i) {
    const float weight = weight_of(i);
    total += weight;
    if (weight != 0.0f) mean += weight * parts.mean[i * parts.stat_step];
  }
  const float inverse = total == 0.0f ? 0.0f : 1.0f / total;
  DecodeColumns sum{{}, {}, total == 0.0f ? -decode::kInf : top + logf(total), mean * inverse};
  for (int first = 0; first < parts.count; first += kAtOnce) {
    float weight[kAtOnce], beyond[kAtOnce];
    xpu::Vec<float, 4> intercept[kAtOnce], correction[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const int i = first + k;
      weight[k] = i < parts.count ? weight_of(i) : 0.0f;
      const bool read = weight[k] != 0.0f;  // a NaN is not 0 and reaches the result
      beyond[k] = read ? parts.mean[i * parts.stat_step] - sum.mean : 0.0f;
      intercept[k] = read ? xpu::load_vec<4>(parts.intercept + i * parts.step)
                          : xpu::Vec<float, 4>{};
      correction[k] = read ? xpu::load_vec<4>(parts.correction + i * parts.step)
                           : xpu::Vec<float, 4>{};
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        sum.intercept[c] += weight[k] * intercept[k][c];
        sum.correction[c] += weight[k] * (correction[k][c] + beyond[k] * intercept[k][c]);
      }
    }
  }
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    sum.intercept[c] *= inverse;
    sum.correction[c] *= inverse;
  }
  return sum;
}

template <class T>
__device__ inline void store_result(const ParallaxDecodeParams<T>& p, const decode::Work& w, int r,
                                    int column, const DecodeColumns& x) {
  const std::int64_t row = w.query_row(r);
  const int head = w.head(r), at = head * p.value_dim + column;
  xpu::Vec<T, 4> out, intercept;
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    out[c] = xpu::from_float<T>(x.intercept[c] - x.correction[c]);
    intercept[c] = xpu::from_float<T>(x.intercept[c]);
  }
  xpu::store_vec(p.out + row * p.out_stride + at, out);
  xpu::store_vec(p.intercept + row * p.intercept_stride + at, intercept);
  if (column == 0) {
    p.lse[row * p.heads + head] = x.lse;
    p.probe_mean[row * p.heads + head] = x.mean;
  }
}

/// The warps have left their parts: intercepts in sums + warp warp_step ([kRows][pitch]), corrections
/// kRows rows behind them. The whole block calls it.
template <class T>
__device__ inline void finish(const ParallaxDecodeParams<T>& p, const decode::Work& w,
                              const float* sums, int warp_step, int pitch,
                              const float (&lses)[decode::kWarps][kRows],
                              const float (&means)[decode::kWarps][kRows]) {
  const int d = p.value_dim, quads = d / 4, part_floats = 2 * kRows * (d + 1);
  float* const parts =
      w.splits == 1 ? nullptr : p.workspace + std::int64_t{w.slot} * p.splits * part_floats;
  float* const part = parts + std::int64_t{w.split} * part_floats;
  xpu::sync_block();
  for (int i = threadIdx.x; i < w.rows * quads; i += decode::kThreads) {
    const int r = i / quads, column = i % quads * 4;
    const float* own = sums + r * pitch + column;
    const DecodeColumns x = merge_parts({own, own + kRows * pitch, &lses[0][r], &means[0][r],
                                         warp_step, kRows, decode::kWarps});
    if (w.splits == 1) {
      store_result(p, w, r, column, x);
      continue;
    }
    xpu::store_vec(part + r * d + column, x.intercept);
    xpu::store_vec(part + (kRows + r) * d + column, x.correction);
    if (column == 0) {
      part[2 * kRows * d + r] = x.lse;
      part[2 * kRows * d + kRows + r] = x.mean;
    }
  }
  if (w.splits == 1 || !decode::last_to_arrive(p, w)) return;
  for (int i = threadIdx.x; i < w.rows * quads; i += decode::kThreads) {
    const int r = i / quads, column = i % quads * 4;
    const float *own = parts + r * d + column, *stats = parts + 2 * kRows * d + r;
    store_result(p, w, r, column, merge_parts({own, own + kRows * d, stats, stats + kRows,
                                               part_floats, part_floats, w.splits}));
  }
  if (threadIdx.x == 0) p.counters[w.slot] = 0;
}

}  // namespace lh::kernels::parallax
