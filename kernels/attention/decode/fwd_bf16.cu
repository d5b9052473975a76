// Decode attention for bf16 on mma.sync: split keys after flash decoding (Dao et al. 2023), paged cache
// after vLLM (Kwon et al. 2023), query heads of a group packed into the rows of one tile.
//   s_rj = scale q_r k_j + bias_j,  p_rj = exp(s_rj - lse_r),  out_r = sum_j p_rj v_j
// Tiling: a block of 4 warps per (sequence, split of the keys, kv head, 16 packed rows), see split.cuh.
//   A warp passes over tiles of 16 keys: 16 x 16 scores, then 16 x d outputs, all in its registers.
// Shared memory: per warp a ring of k [16][kD] and v [16][kDV] stages that cp.async keeps full, swizzled as
//   in tile.cuh. d = 64: 64 KiB, d = 128: 96 KiB (3 stages, 64 KiB of them always on their way, two blocks
//   per multiprocessor), d = 256: 128 KiB and 8 KiB for q, which is else held in registers and passes
//   through a stage that is not in use yet. The outputs of the warps meet in the rings.
// Numerics: as softmax/fwd_bf16.cu within a warp; warps and splits are merged in fp32.
// Determinism: bitwise, in any order of blocks; keys in ascending order, warps and splits merged in order.
// Roofline, an unmeasured estimate: the bytes of the cache. 32 sequences of 16384 tokens, 8 kv heads of
//   128: 2.1 GB, 0.45 ms at 4.8 TB/s, 0.5 ms at the 90 % of it that a copy reaches. The products are 16 rows
//   for any group: 17 GFLOP for 0.5 ms, 4 % of what mma.sync reaches.
#include "kernels/attention/decode/finish.cuh"
#include "kernels/attention/decode/launch.h"
#include "kernels/attention/decode/ring_bf16.cuh"

namespace lh::kernels {

namespace decode {

static_assert(kRows == kTileRows);

template <class C>
__global__ void __launch_bounds__(kThreads) attention_decode_bf16_kernel(
    const AttentionDecodeParams<bf16> p) {
  constexpr int kD = C::kD, kDV = C::kDV, kStages = C::kStages;
  constexpr bool kHeld = C::kHeld;
  XPU_DYN_SHARED(bf16, rings);
  XPU_SHARED(float, bias_rings, [kWarps][kStages][kTile]);
  XPU_SHARED(float, maxima, [kWarps][kRows]);
  XPU_SHARED(float, sums, [kWarps][kRows]);
  Work w;
  if (!find_work<kTile>(p, w)) return;

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  bf16* const ring = rings + warp * C::kRing;
  bf16* const q_tile = rings + (kHeld ? C::kRing - C::kStage : kWarps * C::kRing);

  for (int i = threadIdx.x; i < kRows * kD / 8; i += kThreads) {
    const int r = i / (kD / 8), chunk = i % (kD / 8);
    const bool valid = r < w.rows && chunk * 8 < p.head_dim;
    const bf16* row = p.q + w.query_row(valid ? r : 0) * p.q_stride +
                      w.head(valid ? r : 0) * p.head_dim;
    xpu::copy_async<16>(q_tile + softmax::chunk_offset<kD>(r, chunk), valid ? row + chunk * 8 : row,
                        valid);
  }
  xpu::copy_async_commit();

  const int tiles = warp_tiles(w, warp);
  const auto load_stage = [&](int i) {
    if (i < tiles) {
      const int key = warp_key<kTile>(w, warp, i);
      const std::int64_t row = key_row(p, w, key);
      load_keys<C>(p, w, key, row, ring + i % kStages * C::kStage);
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
  std::uint32_t q[kHeld ? kD / 16 : 1][1][4];
  if constexpr (kHeld) {
#pragma unroll
    for (int step = 0; step < kD / 16; ++step) softmax::load_a<kD>(q[step][0], q_tile, 0, step);
    xpu::sync_block();  // the last stage of the first warp is free
  }

  const int positions[2] = {w.position(g), w.position(g + 8)};
  const float to_log2 = p.scale * kLog2E;
  float out[1][kDV / 8][4] = {};
  float maximum[2] = {-kInf, -kInf}, sum[2] = {};
  for (int i = 0; i < tiles; ++i) {
    xpu::copy_async_wait<kStages - 2>();
    xpu::sync_warp();  // the tile is there for all lanes, and all are done with the one before
    load_stage(i + kStages - 1);
    const int key = warp_key<kTile>(w, warp, i);
    const bf16* k_tile = ring + i % kStages * C::kStage;
    float s[1][2][4] = {};
#pragma unroll
    for (int step = 0; step < kD / 16; ++step) {
      if constexpr (!kHeld) softmax::load_a<kD>(q[0][0], q_tile, 0, step);
      softmax::multiply_step<kD, 1, kTile>(s, q[kHeld ? step : 0], k_tile, step);
    }
    const bool masked = needs_mask(p.mask, w.segment.key_length, w.first, w.last, key, kTile);
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int j = 8 * n + 2 * t + e % 2, position = positions[e / 2];
        float& x = s[0][n][e];
        x *= to_log2;
        if (p.bias && position - key - j >= p.mask.bias_window) {
          x += bias_rings[warp][i % kStages][j] * kLog2E;
        }
        if (masked && !visible(p.mask, position, key + j, w.segment.key_length)) x = -kInf;
      }
    }
    // Online softmax; the sum is kept per lane and reduced at the end.
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float top = fmaxf(fmaxf(s[0][0][2 * half], s[0][0][2 * half + 1]),
                        fmaxf(s[0][1][2 * half], s[0][1][2 * half + 1]));
      top = fmaxf(top, xpu::shuffle_xor(top, 1));
      top = fmaxf(top, xpu::shuffle_xor(top, 2));
      top = fmaxf(maximum[half], top);
      const float base = top == -kInf ? 0.0f : top;  // a row that saw nothing so far
      const float correction = xpu::fast_exp2(maximum[half] - base);
      maximum[half] = top;
      sum[half] *= correction;
#pragma unroll
      for (int n = 0; n < 2; ++n) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          float& x = s[0][n][2 * half + c];
          x = xpu::fast_exp2(x - base);
          sum[half] += x;
        }
      }
      if (xpu::ballot(correction != 1.0f)) {  // rare once the largest scores have been seen
#pragma unroll
        for (int n = 0; n < kDV / 8; ++n) {
          out[0][n][2 * half] *= correction;
          out[0][n][2 * half + 1] *= correction;
        }
      }
    }
    softmax::multiply_weights<kDV, 1, kTile>(out, s, k_tile + kTile * kD);
  }

  xpu::copy_async_wait<0>();
  xpu::sync_warp();  // all lanes are done with the ring
  float* own = reinterpret_cast<float*>(ring);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    sum[half] += xpu::shuffle_xor(sum[half], 1);
    sum[half] += xpu::shuffle_xor(sum[half], 2);
    const int r = g + 8 * half;
    if (t == 0) {
      maxima[warp][r] = maximum[half];
      sums[warp][r] = sum[half];
    }
#pragma unroll
    for (int n = 0; n < kDV / 8; ++n) {
      xpu::store_vec(own + r * C::kPitch + 8 * n + 2 * t,
                     xpu::Vec<float, 2>{{out[0][n][2 * half], out[0][n][2 * half + 1]}});
    }
  }
  finish(p, w, reinterpret_cast<const float*>(rings), C::kRing / 2, C::kPitch, maxima, sums);
}

template <int kD, int kDV>
void run(const AttentionDecodeParams<bf16>& p, xpu::Stream stream) {
  using C = Config<kD, kDV>;
  xpu::launch<attention_decode_bf16_kernel<C>>({blocks(p), kThreads, C::kSharedBytes, stream}, p);
}

void launch(const AttentionDecodeParams<bf16>& p, xpu::Stream stream) {
  const int larger = imax(p.head_dim, p.value_dim);
  if (larger <= 64) {
    run<64, 64>(p, stream);
  } else if (larger <= 128) {
    run<128, 128>(p, stream);
  } else if (p.value_dim <= 128) {
    run<256, 128>(p, stream);
  } else {
    run<256, 256>(p, stream);
  }
}

}  // namespace decode

}  // namespace lh::kernels
