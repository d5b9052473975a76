// Decode attention of Parallax in fp32 on plain multiply-adds: decode/fwd_fp32.cu with a second channel.
// Formulas as fwd_bf16.cu, parts as decode_finish.cuh.
// Tiling: a block of 4 warps per (sequence, split of the keys, kv head, 8 packed query rows), see
//   decode/split.cuh. A warp passes over tiles of 8 keys. Lane (y, x) = (lane / 8, lane % 8) owns p and u
//   of key x and rows y, y + 4; the weights of both channels pass through shared memory to the lanes as
//   owners of columns 4 lane of all rows. Rows that do not exist cost nothing.
// Shared memory: q and r [16][d + 4], per warp a ring of k [8][d + 4] and v [8][d] stages, two of them:
//   73 KiB at d = 128.
// Numerics: fp32 throughout, online softmax in units of log 2 with the accurate exponential.
// Determinism: bitwise, as decode_bf16.cu.
// Roofline, an unmeasured estimate: the bytes of the cache while tokens x group is at most 4 or so: 32
//   sequences of 16384 tokens, 8 kv heads of 128: 4.3 GB, 0.9 ms at 4.8 TB/s.
#include "kernels/attention/decode/launch.h"
#include "kernels/attention/decode/ring_fp32.cuh"
#include "kernels/attention/parallax/decode_finish.cuh"
#include "kernels/attention/parallax/dispatch.h"
#include "kernels/attention/parallax/row.cuh"
#include "kernels/attention/softmax/fp32_tile.h"

namespace lh::kernels::parallax {

using decode::kThreads;
using decode::kWarps;
using decode::Work;
using decode::fp32::kPad;
using decode::fp32::kStages;
using decode::fp32::kTile;

constexpr int kWeightPitch = kTile + 4;  // a row's weights, then what the row's owners tell the columns'

__global__ void __launch_bounds__(kThreads)
    parallax_decode_fp32_kernel(const ParallaxDecodeParams<float> p) {
  XPU_DYN_SHARED(float, qr_tile);
  XPU_SHARED(float, weight_tiles, [kWarps][2 * kRows][kWeightPitch]);
  XPU_SHARED(float, lses, [kWarps][kRows]);
  XPU_SHARED(float, means, [kWarps][kRows]);
  Work w;
  if (!decode::find_work<kTile>(p, w)) return;

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, x = lane % 8, y = lane / 8;
  const int d = p.head_dim, pitch = d + kPad;
  const int stage_size = decode::fp32::stage_floats(d, p.value_dim);
  float* const rings = qr_tile + 2 * kRows * pitch;
  float* const ring = rings + warp * kStages * stage_size;
  auto& weights = weight_tiles[warp];

  for (int i = threadIdx.x; i < w.rows * d / 4; i += kThreads) {
    const int r = i / (d / 4), column = i % (d / 4) * 4, at = w.head(r) * d + column;
    xpu::copy_async<16>(qr_tile + r * pitch + column, p.q + w.query_row(r) * p.q_stride + at);
    xpu::copy_async<16>(qr_tile + (kRows + r) * pitch + column,
                        p.r + w.query_row(r) * p.r_stride + at);
  }
  xpu::copy_async_commit();

  const int tiles = decode::warp_tiles(w, warp);
  const auto load_stage = [&](int i) {
    if (i < tiles) {
      const int key = decode::warp_key<kTile>(w, warp, i);
      decode::fp32::load_keys(p, w, key, decode::key_row(p, w, key),
                              ring + i % kStages * stage_size);
    }
    xpu::copy_async_commit();  // empty groups keep the count right
  };
  for (int i = 0; i < kStages - 1; ++i) load_stage(i);
  xpu::copy_async_wait<kStages - 1>();
  xpu::sync_block();  // the rows that other warps copied

  const int positions[2] = {w.position(y), w.position(y + 4)};
  const int column = 4 * lane;
  float out[2 * kRows][4] = {};  // sums of p v, then of p (u - c) v
  ProbeRow state[2];
  for (int tile = 0; tile < tiles; ++tile) {
    xpu::copy_async_wait<kStages - 2>();
    xpu::sync_warp();  // the tile is there for all lanes, and all are done with the one before
    load_stage(tile + kStages - 1);
    const int key = decode::warp_key<kTile>(w, warp, tile) + x;
    const float* k_row = ring + tile % kStages * stage_size + x * pitch;
    const float* v_tile = ring + tile % kStages * stage_size + kTile * pitch;
    float s[2][1] = {}, u[2][1] = {};
#pragma unroll 2
    for (int c = 0; c < d; c += 4) {
      const auto k = xpu::load_vec<4>(k_row + c);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (y + 4 * i >= w.rows) continue;
        const auto q = xpu::load_vec<4>(qr_tile + (y + 4 * i) * pitch + c);
        const auto r = xpu::load_vec<4>(qr_tile + (kRows + y + 4 * i) * pitch + c);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          s[i][0] += q[e] * k[e];
          u[i][0] += r[e] * k[e];
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      s[i][0] = softmax::fp32::score(p.mask, s[i][0], p.scale, 0.0f, positions[i], key,
                                     w.segment.key_length);
      const Rescale rescale = state[i].add<8, false>(s[i], u[i]);
      weights[y + 4 * i][x] = s[i][0];
      weights[kRows + y + 4 * i][x] = u[i][0];
      if (x == 0) {
        weights[y + 4 * i][kTile] = rescale.factor;
        weights[kRows + y + 4 * i][kTile] = rescale.shift;
      }
    }
    xpu::sync_warp();  // the lanes change owners: from rows to columns
    if (column >= p.value_dim) continue;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= w.rows) continue;
      const float factor = weights[r][kTile], shift = weights[kRows + r][kTile];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        out[kRows + r][e] = (out[kRows + r][e] - shift * out[r][e]) * factor;
        out[r][e] *= factor;
      }
    }
#pragma unroll 1
    for (int j = 0; j < kTile; ++j) {
      const auto v = xpu::load_vec<4>(v_tile + j * p.value_dim + column);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (r >= w.rows) continue;
        const float plain = weights[r][j], centred = weights[kRows + r][j];
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          out[r][e] += plain * v[e];
          out[kRows + r][e] += centred * v[e];
        }
      }
    }
  }

  xpu::copy_async_wait<0>();
  xpu::sync_warp();  // all lanes are done with the ring and the weights
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    state[i].finish<8>();
    if (x == 0) {
      lses[warp][y + 4 * i] = state[i].lse();
      means[warp][y + 4 * i] = state[i].probe_mean();
      weights[y + 4 * i][kTile] = state[i].inverse();
      weights[kRows + y + 4 * i][kTile] = state[i].beyond();
    }
  }
  xpu::sync_warp();
  if (column < p.value_dim) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float inverse = weights[r][kTile], beyond = weights[kRows + r][kTile];
      xpu::Vec<float, 4> plain, correction;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        plain[e] = out[r][e] * inverse;
        correction[e] = out[kRows + r][e] * inverse - beyond * plain[e];
      }
      xpu::store_vec(ring + r * p.value_dim + column, plain);
      xpu::store_vec(ring + (kRows + r) * p.value_dim + column, correction);
    }
  }
  finish(p, w, rings, kStages * stage_size, p.value_dim, lses, means);
}

void launch_decode(const ParallaxDecodeParams<float>& p, xpu::Stream stream) {
  const auto floats = static_cast<std::size_t>(
      2 * kRows * (p.head_dim + kPad) +
      kWarps * kStages * decode::fp32::stage_floats(p.head_dim, p.value_dim));
  xpu::launch<parallax_decode_fp32_kernel>(
      {decode::blocks(p), kThreads, floats * sizeof(float), stream}, p);
}

}  // namespace lh::kernels::parallax
