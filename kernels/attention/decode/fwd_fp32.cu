// Decode attention in fp32 on plain multiply-adds; formula and plan as fwd_bf16.cu.
// Tiling: a block of 4 warps per (sequence, split of the keys, kv head, 16 packed rows), see split.cuh.
//   A warp passes over tiles of 8 keys. Lane (y, x) = (lane / 8, lane % 8) owns the scores of key x and
//   rows y + 4 i; the weights pass through shared memory to the lanes as owners of columns
//   4 lane + 128 c of all rows. Rows that do not exist cost nothing.
// Shared memory: q [16][d + 4], per warp a ring of k [8][d + 4] and v [8][d] stages, two of
//   them: 73 KiB at d = 128, 145 KiB at d = 256.
// Numerics: fp32 throughout, online softmax in units of log 2 with the accurate exponential.
// Determinism: bitwise, as fwd_bf16.cu.
// Roofline, an unmeasured estimate: the bytes of the cache while tokens x group is at most 8 or so: 32
//   sequences of 16384 tokens, 8 kv heads of 128: 4.3 GB, 0.9 ms at 4.8 TB/s.
#include "kernels/attention/decode/finish.cuh"
#include "kernels/attention/decode/launch.h"
#include "kernels/attention/decode/ring_fp32.cuh"
#include "kernels/attention/softmax/fp32_tile.h"

namespace lh::kernels {

namespace decode {

namespace fp32 {

constexpr int kWeightPitch = kTile + 4;  // a row's weights, then its correction

/// kC: groups of 128 value columns.
template <int kC>
__global__ void __launch_bounds__(kThreads)
    attention_decode_fp32_kernel(const AttentionDecodeParams<float> p) {
  XPU_DYN_SHARED(float, q_tile);
  XPU_SHARED(float, bias_rings, [kWarps][kStages][kTile]);
  XPU_SHARED(float, weight_tiles, [kWarps][kRows][kWeightPitch]);
  XPU_SHARED(float, maxima, [kWarps][kRows]);
  XPU_SHARED(float, sums, [kWarps][kRows]);
  Work w;
  if (!find_work<kTile>(p, w)) return;

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, x = lane % 8, y = lane / 8;
  const int d = p.head_dim, q_pitch = d + kPad, stage_size = stage_floats(d, p.value_dim);
  float* const rings = q_tile + kRows * q_pitch;
  float* const ring = rings + warp * kStages * stage_size;
  auto& weights = weight_tiles[warp];

  for (int i = threadIdx.x; i < w.rows * d / 4; i += kThreads) {
    const int r = i / (d / 4), column = i % (d / 4) * 4;
    xpu::copy_async<16>(q_tile + r * q_pitch + column,
                        p.q + w.query_row(r) * p.q_stride + w.head(r) * d + column);
  }
  xpu::copy_async_commit();

  const int tiles = warp_tiles(w, warp);
  const auto load_stage = [&](int i) {
    if (i < tiles) {
      const int key = warp_key<kTile>(w, warp, i);
      const std::int64_t row = key_row(p, w, key);
      load_keys(p, w, key, row, ring + i % kStages * stage_size);
      if (p.bias && lane < kTile) {
        const bool valid = key + lane < w.segment.key_length;
        xpu::copy_async<4>(&bias_rings[warp][i % kStages][lane],
                           p.bias + (row + (valid ? lane : 0)) * p.kv_heads + w.kv_head, valid);
      }
    }
    xpu::copy_async_commit();  // empty groups keep the count right
  };
  for (int i = 0; i < kStages - 1; ++i) load_stage(i);
  xpu::copy_async_wait<kStages - 1>();
  xpu::sync_block();  // the rows of q that other warps copied

  int positions[kRows / 4];
#pragma unroll
  for (int i = 0; i < kRows / 4; ++i) positions[i] = w.position(y + 4 * i);
  float out[kRows][kC][4] = {};
  float maximum[kRows / 4], sum[kRows / 4] = {};
#pragma unroll
  for (int i = 0; i < kRows / 4; ++i) maximum[i] = -kInf;

  for (int tile = 0; tile < tiles; ++tile) {
    xpu::copy_async_wait<kStages - 2>();
    xpu::sync_warp();  // the tile is there for all lanes, and all are done with the one before
    load_stage(tile + kStages - 1);
    const int key = warp_key<kTile>(w, warp, tile) + x;
    const float* k_row = ring + tile % kStages * stage_size + x * q_pitch;
    const float* v_tile = ring + tile % kStages * stage_size + kTile * q_pitch;
    float s[kRows / 4] = {};
#pragma unroll 2
    for (int c = 0; c < d; c += 4) {
      const auto k = xpu::load_vec<4>(k_row + c);
#pragma unroll
      for (int i = 0; i < kRows / 4; ++i) {
        if (y + 4 * i >= w.rows) continue;
        const auto q = xpu::load_vec<4>(q_tile + (y + 4 * i) * q_pitch + c);
#pragma unroll
        for (int e = 0; e < 4; ++e) s[i] += q[e] * k[e];
      }
    }
    const float bias = p.bias ? bias_rings[warp][tile % kStages][x] : 0.0f;
#pragma unroll
    for (int i = 0; i < kRows / 4; ++i) {
      s[i] = softmax::fp32::score(p.mask, s[i], p.scale, bias, positions[i], key,
                                  w.segment.key_length);
      float top = s[i];
#pragma unroll
      for (int offset = 4; offset > 0; offset /= 2) {
        top = fmaxf(top, xpu::shuffle_xor(top, offset));
      }
      top = fmaxf(maximum[i], top);
      const float base = top == -kInf ? 0.0f : top;  // a row that saw nothing so far
      const float correction = exp2f(maximum[i] - base);
      maximum[i] = top;
      s[i] = exp2f(s[i] - base);
      sum[i] = sum[i] * correction + s[i];
      weights[y + 4 * i][x] = s[i];
      if (x == 0) weights[y + 4 * i][kTile] = correction;
    }
    xpu::sync_warp();  // the lanes change owners: from rows to columns
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= w.rows) continue;
      const float correction = weights[r][kTile];
#pragma unroll
      for (int c = 0; c < kC; ++c) {
#pragma unroll
        for (int e = 0; e < 4; ++e) out[r][c][e] *= correction;
      }
    }
#pragma unroll 1
    for (int j = 0; j < kTile; ++j) {
#pragma unroll
      for (int c = 0; c < kC; ++c) {
        const int column = 4 * lane + 128 * c;
        if (column >= p.value_dim) continue;
        const auto v = xpu::load_vec<4>(v_tile + j * p.value_dim + column);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (r >= w.rows) continue;
          const float weight = weights[r][j];
#pragma unroll
          for (int e = 0; e < 4; ++e) out[r][c][e] += weight * v[e];
        }
      }
    }
  }

  xpu::copy_async_wait<0>();
  xpu::sync_warp();  // all lanes are done with the ring
#pragma unroll
  for (int i = 0; i < kRows / 4; ++i) {
#pragma unroll
    for (int offset = 4; offset > 0; offset /= 2) sum[i] += xpu::shuffle_xor(sum[i], offset);
    if (x == 0) {
      maxima[warp][y + 4 * i] = maximum[i];
      sums[warp][y + 4 * i] = sum[i];
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int c = 0; c < kC; ++c) {
      const int column = 4 * lane + 128 * c;
      if (column >= p.value_dim) continue;
      xpu::store_vec(ring + r * p.value_dim + column,
                     xpu::Vec<float, 4>{{out[r][c][0], out[r][c][1], out[r][c][2], out[r][c][3]}});
    }
  }
  finish(p, w, rings, kStages * stage_size, p.value_dim, maxima, sums);
}

template <int kC>
void run(const AttentionDecodeParams<float>& p, xpu::Stream stream) {
  const auto floats = static_cast<std::size_t>(kRows * (p.head_dim + kPad) +
                                               kWarps * kStages *
                                                   stage_floats(p.head_dim, p.value_dim));
  xpu::launch<attention_decode_fp32_kernel<kC>>(
      {blocks(p), kThreads, floats * sizeof(float), stream}, p);
}

}  // namespace fp32

void launch(const AttentionDecodeParams<float>& p, xpu::Stream stream) {
  if (p.value_dim <= 128) {
    fp32::run<1>(p, stream);
  } else {
    fp32::run<2>(p, stream);
  }
}

}  // namespace decode

}  // namespace lh::kernels
