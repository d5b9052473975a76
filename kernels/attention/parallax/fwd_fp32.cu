// Parallax forward in fp32 on plain multiply-adds; formulas as fwd_bf16.cu.
// Tiling: a block of 256 threads per (32 queries, head); keys pass once in tiles of 32
//   (softmax/fp32_tile.h).
// Shared memory: q, r, k, v tiles and a 32 x 33 tile of weights: 70 KiB at d = 128.
// Numerics: fp32 throughout, online softmax in units of log 2 with the accurate exponential; u is
//   centred as in fwd_bf16.cu.
// Determinism: bitwise; key tiles in ascending order.
// Roofline, an unmeasured estimate: 67 TFLOP/s of fp32 on H200; 8 d flops per visible pair; shared
//   memory bounds it to about half of that.
#include "kernels/attention/parallax/dispatch.h"
#include "kernels/attention/parallax/row.cuh"
#include "kernels/attention/softmax/fp32_tile.h"

namespace lh::kernels::parallax {

using namespace softmax::fp32;  // tiles and products

/// kC: groups of 64 columns.
template <int kC>
__global__ void __launch_bounds__(kThreads, 1)
    parallax_fwd_fp32_kernel(const ParallaxFwdParams<float> p) {
  XPU_DYN_SHARED(float, q_tile);
  XPU_SHARED(float, weights, [kTile * (kTile + 1)]);
  float* const r_tile = q_tile + tile_floats(p.head_dim);
  float* const k_tile = r_tile + tile_floats(p.head_dim);
  float* const v_tile = k_tile + tile_floats(p.head_dim);

  const int head = blockIdx.x % p.heads, kv_head = head / (p.heads / p.kv_heads);
  const AttentionQueryTile work = p.schedule.query_tiles[blockIdx.x / p.heads];
  const AttentionSegment segment = p.schedule.segments[work.segment];
  const int rows = imin(kTile, segment.query_length - work.first);
  if (rows <= 0) return;  // an empty work item
  const int first = segment.query_offset + work.first, last = first + rows - 1;  // positions
  const std::int64_t row_begin = std::int64_t{segment.query_begin} + work.first;
  const KeyTileRange range = key_tile_range(p.mask, segment.key_length, first, last, kTile);

  load_tile(q_tile, p.q + row_begin * p.q_stride + head * p.head_dim, p.q_stride, rows, p.head_dim);
  load_tile(r_tile, p.r + row_begin * p.r_stride + head * p.head_dim, p.r_stride, rows, p.head_dim);
  float plain[2][kC][4] = {}, out[2][kC][4] = {};  // sums of p v and of p (u - c) v
  ProbeRow state[2];
  for (int tile = 0; tile < range.count(); ++tile) {
    const int key = range.at(tile) * kTile, keys = imin(kTile, segment.key_length - key);
    const std::int64_t key_row = std::int64_t{segment.key_begin} + key;
    xpu::sync_block();  // all are done with the tile before
    load_tile(k_tile, p.k + key_row * p.k_stride + kv_head * p.head_dim, p.k_stride, keys,
              p.head_dim);
    load_tile(v_tile, p.v + key_row * p.v_stride + kv_head * p.value_dim, p.v_stride, keys,
              p.value_dim);
    xpu::sync_block();
    float s[2][2], u[2][2];
    dot(s, q_tile, k_tile, p.head_dim);
    dot(u, r_tile, k_tile, p.head_dim);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        s[i][j] = score(p.mask, s[i][j], p.scale, 0.0f, first + own_y() + 16 * i,
                        key + own_x() + 16 * j, segment.key_length);
      }
      const Rescale rescale = state[i].add<16, false>(s[i], u[i]);
#pragma unroll
      for (int c = 0; c < kC; ++c) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float& centred = out[i][c][e];
          centred = (centred - rescale.shift * plain[i][c][e]) * rescale.factor;
          plain[i][c][e] *= rescale.factor;
        }
      }
    }
    put_weights(weights, s);
    multiply<kC>(plain, weights, v_tile, p.value_dim);
    put_weights(weights, u);
    multiply<kC>(out, weights, v_tile, p.value_dim);
  }

  float inverse[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    state[i].finish<16>();
    inverse[i] = state[i].inverse();
    const float gain = 1.0f + state[i].beyond();
    const int row = own_y() + 16 * i;
    if (own_x() == 0 && row < rows) {
      p.lse[(row_begin + row) * p.heads + head] = state[i].lse();
      p.probe_mean[(row_begin + row) * p.heads + head] = state[i].probe_mean();
    }
#pragma unroll
    for (int c = 0; c < kC; ++c) {
#pragma unroll
      for (int e = 0; e < 4; ++e) out[i][c][e] = plain[i][c][e] * gain - out[i][c][e];
    }
  }
  store_rows<kC>(p.intercept + row_begin * p.intercept_stride + head * p.value_dim,
                 p.intercept_stride, plain, inverse, rows, p.value_dim);
  store_rows<kC>(p.out + row_begin * p.out_stride + head * p.value_dim, p.out_stride, out, inverse,
                 rows, p.value_dim);
}

template <int kC>
void run_fwd(const ParallaxFwdParams<float>& p, xpu::Stream stream) {
  const auto floats = static_cast<std::size_t>(3 * tile_floats(p.head_dim) +
                                               tile_floats(p.value_dim));
  xpu::launch<parallax_fwd_fp32_kernel<kC>>(
      {blocks(p.schedule.query_tile_count, p.heads), kThreads, floats * sizeof(float), stream}, p);
}

void launch_fwd(const ParallaxFwdParams<float>& p, xpu::Stream stream) {
  if (p.value_dim <= 64) {
    run_fwd<1>(p, stream);
  } else {
    run_fwd<2>(p, stream);
  }
}

}  // namespace lh::kernels::parallax
