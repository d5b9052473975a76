// Decode attention of Parallax for bf16 on mma.sync: attention_decode (decode/fwd_bf16.cu) with a second
// channel that costs no traffic and no products. Formulas as fwd_bf16.cu, parts as decode_finish.cuh.
// Tiling: a block of 4 warps per (sequence, split of the keys, kv head, 8 packed query rows), see
//   decode/split.cuh. The tile of 16 rows that mma.sync takes holds the 8 queries, then their 8 probes, so
//   that a lane finds p and u of a pair in the same product, and both sums leave the next one.
//   A warp passes over tiles of 16 keys.
// Shared memory: per warp a ring of k and v stages that cp.async keeps full, as decode/fwd_bf16.cu: d = 64:
//   64 KiB, d = 128: 96 KiB, two blocks per multiprocessor. Queries and probes are held in registers.
//   The parts of the warps meet in the rings.
// Numerics: as fwd_bf16.cu within a warp; warps and splits are merged in fp32.
// Determinism: bitwise, in any order of blocks; keys in ascending order, warps and splits merged in order.
// Roofline, an unmeasured estimate: the bytes of the cache. 32 sequences of 16384 tokens, 8 kv heads of
//   128: 2.1 GB, 0.45 ms at 4.8 TB/s, 0.5 ms at the 90 % of it that a copy reaches, as softmax attention
//   for groups of up to 8 query heads; each 8 more read the cache once more, from L2 where it is shared.
#include "kernels/attention/decode/launch.h"
#include "kernels/attention/decode/ring_bf16.cuh"
#include "kernels/attention/parallax/decode_finish.cuh"
#include "kernels/attention/parallax/dispatch.h"
#include "kernels/attention/parallax/row.cuh"

namespace lh::kernels::parallax {

using decode::kThreads;
using decode::kTile;
using decode::kTileRows;
using decode::kWarps;
using decode::Work;
using xpu::bf16;

static_assert(2 * kRows == kTileRows);

template <class C>
__global__ void __launch_bounds__(kThreads) parallax_decode_bf16_kernel(
    const ParallaxDecodeParams<bf16> p) {
  constexpr int kD = C::kD, kStages = C::kStages;
  static_assert(C::kHeld && C::kD == C::kDV);
  XPU_DYN_SHARED(bf16, rings);
  XPU_SHARED(float, lses, [kWarps][kRows]);
  XPU_SHARED(float, means, [kWarps][kRows]);
  Work w;
  if (!decode::find_work<kTile>(p, w)) return;

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  bf16* const ring = rings + warp * C::kRing;
  bf16* const qr_tile = rings + C::kRing - C::kStage;  // in a stage that is not in use yet

  for (int i = threadIdx.x; i < kTileRows * kD / 8; i += kThreads) {
    const int r = i / (kD / 8) % kRows, chunk = i % (kD / 8);
    const bool probe = i / (kD / 8) >= kRows, valid = r < w.rows && chunk * 8 < p.head_dim;
    const std::int64_t row = w.query_row(valid ? r : 0);
    const int column = w.head(valid ? r : 0) * p.head_dim;
    const bf16* source = (probe ? p.r + row * p.r_stride : p.q + row * p.q_stride) + column;
    xpu::copy_async<16>(qr_tile + softmax::chunk_offset<kD>(i / (kD / 8), chunk),
                        valid ? source + chunk * 8 : source, valid);
  }
  xpu::copy_async_commit();

  const int tiles = decode::warp_tiles(w, warp);
  const auto load_stage = [&](int i) {
    if (i < tiles) {
      const int key = decode::warp_key<kTile>(w, warp, i);
      decode::load_keys<C>(p, w, key, decode::key_row(p, w, key), ring + i % kStages * C::kStage);
    }
    xpu::copy_async_commit();  // empty groups keep the count right
  };
  for (int i = 0; i < kStages - 1; ++i) load_stage(i);
  xpu::copy_async_wait<kStages - 1>();
  xpu::sync_block();  // the rows that other warps copied
  std::uint32_t qr[kD / 16][1][4];
#pragma unroll
  for (int step = 0; step < kD / 16; ++step) softmax::load_a<kD>(qr[step][0], qr_tile, 0, step);
  xpu::sync_block();  // the last stage of the first warp is free

  const int position = w.position(g);
  const float to_log2 = p.scale * kLog2E;
  float out[1][kD / 8][4] = {};  // rows g: sums of p v, rows g + 8: of p (u - c) v
  ProbeRow state;
  for (int i = 0; i < tiles; ++i) {
    xpu::copy_async_wait<kStages - 2>();
    xpu::sync_warp();  // the tile is there for all lanes, and all are done with the one before
    load_stage(i + kStages - 1);
    const int key = decode::warp_key<kTile>(w, warp, i);
    const bf16* k_tile = ring + i % kStages * C::kStage;
    float su[1][2][4] = {};
#pragma unroll
    for (int step = 0; step < kD / 16; ++step) {
      softmax::multiply_step<kD, 1, kTile>(su, qr[step], k_tile, step);
    }
    const bool masked = needs_mask(p.mask, w.segment.key_length, w.first, w.last, key, kTile);
    float s[4], u[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      s[j] = su[0][j / 2][j % 2];
      u[j] = su[0][j / 2][2 + j % 2];
      const int column = key + 8 * (j / 2) + 2 * t + j % 2;
      if (masked && !visible(p.mask, position, column, w.segment.key_length)) s[j] = -kInf;
    }
    const Rescale rescale = state.add<4, true>(s, u, to_log2);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      su[0][j / 2][j % 2] = s[j];
      su[0][j / 2][2 + j % 2] = u[j];
    }
    if (xpu::ballot(rescale.factor != 1.0f)) {  // rare once the largest scores have been seen
#pragma unroll
      for (int n = 0; n < kD / 8; ++n) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          float &plain = out[0][n][c], &centred = out[0][n][2 + c];
          centred = (centred - rescale.shift * plain) * rescale.factor;
          plain *= rescale.factor;
        }
      }
    }
    softmax::multiply_weights<kD, 1, kTile>(out, su, k_tile + kTile * kD);
  }

  xpu::copy_async_wait<0>();
  xpu::sync_warp();  // all lanes are done with the ring
  float* own = reinterpret_cast<float*>(ring);
  state.finish<4>();
  const float inverse = state.inverse(), beyond = state.beyond();
  if (t == 0) {
    lses[warp][g] = state.lse();
    means[warp][g] = state.probe_mean();
  }
#pragma unroll
  for (int n = 0; n < kD / 8; ++n) {
    xpu::Vec<float, 2> plain, correction;
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      plain[c] = out[0][n][c] * inverse;
      correction[c] = out[0][n][2 + c] * inverse - beyond * plain[c];
    }
    xpu::store_vec(own + g * C::kPitch + 8 * n + 2 * t, plain);
    xpu::store_vec(own + (kRows + g) * C::kPitch + 8 * n + 2 * t, correction);
  }
  finish(p, w, reinterpret_cast<const float*>(rings), C::kRing / 2, C::kPitch, lses, means);
}

void launch_decode(const ParallaxDecodeParams<bf16>& p, xpu::Stream stream) {
  const auto run = [&]<int kD> {
    using C = decode::Config<kD, kD>;
    xpu::launch<parallax_decode_bf16_kernel<C>>(
        {decode::blocks(p), kThreads, C::kSharedBytes, stream}, p);
  };
  if (imax(p.head_dim, p.value_dim) <= 64) {
    run.template operator()<64>();
  } else {
    run.template operator()<128>();
  }
}

}  // namespace lh::kernels::parallax
