// The end of a block of attention_decode: its warps' parts of the softmax become one, and the last block
// of a slot makes one of all splits' (split.cuh).
#pragma once
#include "kernels/attention/decode/split.cuh"
#include "kernels/attention/merge.cuh"

namespace lh::kernels::decode {

constexpr int kRows = AttentionDecodeParams<float>::kRows;

template <class T>
__device__ inline void store_result(const AttentionDecodeParams<T>& p, const Work& w, int r,
                                    int column, const xpu::Vec<float, 4>& x, float lse) {
  const std::int64_t row = w.query_row(r);
  const int head = w.head(r);
  const std::int64_t at = row * p.out_stride + head * p.value_dim + column;
  if (p.partial) {
    xpu::store_vec(p.partial + at, x);
  } else {
    xpu::Vec<T, 4> out;
#pragma unroll
    for (int c = 0; c < 4; ++c) out[c] = xpu::from_float<T>(x[c]);
    xpu::store_vec(p.out + at, out);
  }
  if (column == 0) p.lse[row * p.heads + head] = lse;
}

/// Ends a block whose warps have left their outputs, not yet normalised, in outs + warp warp_step
/// ([kRows][pitch]) with the maxima (units of log 2) and sums of their rows. The whole block calls it.
template <class T>
__device__ inline void finish(const AttentionDecodeParams<T>& p, const Work& w, const float* outs,
                              int warp_step, int pitch, const float (&maxima)[kWarps][kRows],
                              const float (&sums)[kWarps][kRows]) {
  const int d = p.value_dim, quads = d / 4, part_floats = kRows * (d + 1);
  float* const parts =
      w.splits == 1 ? nullptr : p.workspace + std::int64_t{w.slot} * p.splits * part_floats;
  float* const part = parts + std::int64_t{w.split} * part_floats;
  xpu::sync_block();
  for (int i = threadIdx.x; i < w.rows * quads; i += kThreads) {
    const int r = i / quads, column = i % quads * 4;
    float top = -kInf;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) top = fmaxf(top, maxima[warp][r]);
    const float base = top == -kInf ? 0.0f : top;
    xpu::Vec<float, 4> x{};
    float total = 0.0f;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) {
      const float factor = exp2f(maxima[warp][r] - base);
      const auto own = xpu::load_vec<4>(outs + warp * warp_step + r * pitch + column);
      total += sums[warp][r] * factor;
#pragma unroll
      for (int c = 0; c < 4; ++c) x[c] += own[c] * factor;
    }
    const float inverse = total == 0.0f ? 0.0f : 1.0f / total;
    const float lse = total == 0.0f ? -kInf : top * kLn2 + logf(total);
#pragma unroll
    for (int c = 0; c < 4; ++c) x[c] *= inverse;
    if (w.splits == 1) {
      store_result(p, w, r, column, x, lse);
    } else {
      xpu::store_vec(part + r * d + column, x);
      if (column == 0) part[kRows * d + r] = lse;
    }
  }
  if (w.splits == 1 || !last_to_arrive(p, w)) return;
  for (int i = threadIdx.x; i < w.rows * quads; i += kThreads) {
    const int r = i / quads, column = i % quads * 4;
    float lse;
    const auto x = merge_columns(parts + r * d + column, part_floats, parts + kRows * d + r,
                                 part_floats, w.splits, &lse);
    store_result(p, w, r, column, x, lse);
  }
  if (threadIdx.x == 0) p.counters[w.slot] = 0;
}

}  // namespace lh::kernels::decode
