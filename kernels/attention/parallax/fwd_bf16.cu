// Parallax forward for bf16 on mma.sync (arXiv 2605.29157), after FlashAttention-2 (Dao 2023).
//   p_ij = softmax_j(scale q_i k_j),  u_ij = r_i k_j (not scaled),  m_i = sum_j p_ij u_ij
//   intercept_i = sum_j p_ij v_j,  out_i = sum_j p_ij (1 + m_i - u_ij) v_j
//               = intercept_i (1 + m_i - c_i) - sum_j p_ij (u_ij - c_i) v_j   for any c_i
// Tiling: a block of 4 warps per (64 queries, head), the heads of a tile in neighbouring blocks so that a
//   group shares its keys in L2. A warp owns 16 query rows and their 16 probes: one fragment of k
//   serves both scores, one fragment of v both sums, so the second channel reads nothing more of
//   shared or global memory. The keys stream past once, in tiles of kN.
// Shared memory: q, r [64][kD], then two stages of k, v [kN][kD], swizzled (softmax/tile.cuh). cp.async
//   fills the next stage while the present one is used: one barrier per key tile. d = 128: 64 KiB.
//   Both outputs leave through the tiles of q and r.
// Masks: as softmax/fwd_bf16.cu; a masked pair has p = 0 in both channels.
// Numerics: scores and sums fp32; p and p (u - c) are rounded to bf16 for their products, their sums
//   are not. c follows the mean of u (row.cuh): it moves whenever the maximum of the scores rises, so that
//   the difference above does not cancel, whatever keys come first.
// Determinism: bitwise; key tiles in ascending order.
// Roofline, an unmeasured estimate: 8 d flops per visible pair. 8 documents of 8192 tokens, 32 heads of
//   128, causal: 8.8 TFLOP. mma.sync on H200 reaches at most about 60 % of the 989 TFLOP/s of wgmma; at
//   350 TFLOP/s 25 ms. Bound by tensor cores and shared memory; global traffic is 3.2 GB, 0.7 ms.
#include "kernels/attention/parallax/dispatch.h"
#include "kernels/attention/parallax/row.cuh"
#include "kernels/attention/softmax/tile.cuh"

namespace lh::kernels::parallax {

using softmax::kThreads;
using softmax::kWarps;
using softmax::load_tile;
using xpu::bf16;

template <int kD_>
struct FwdConfig {
  static constexpr int kD = kD_, kM = 16 * kWarps;
  static constexpr int kN = kD > 64 ? 32 : 64;  // as registers allow
  static constexpr int kQueries = 2 * kM * kD;  // elements
  static constexpr int kStage = 2 * kN * kD;
  static constexpr std::size_t kSharedBytes = (kQueries + 2 * kStage) * sizeof(bf16);
};

template <class Config>
__global__ void __launch_bounds__(kThreads)
    parallax_fwd_bf16_kernel(const ParallaxFwdParams<bf16> p) {
  constexpr int kD = Config::kD, kM = Config::kM, kN = Config::kN;
  XPU_DYN_SHARED(bf16, qr_tile);
  bf16* const r_tile = qr_tile + kM * kD;
  bf16* const stages = qr_tile + Config::kQueries;

  const int head = blockIdx.x % p.heads, kv_head = head / (p.heads / p.kv_heads);
  const AttentionQueryTile work = p.schedule.query_tiles[blockIdx.x / p.heads];
  const AttentionSegment segment = p.schedule.segments[work.segment];
  const int rows = imin(kM, segment.query_length - work.first);
  if (rows <= 0) return;  // an empty work item
  const int first = segment.query_offset + work.first, last = first + rows - 1;  // positions
  const std::int64_t row_begin = std::int64_t{segment.query_begin} + work.first;
  const KeyTileRange range = key_tile_range(p.mask, segment.key_length, first, last, kN);
  const int tiles = range.count();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int warp_row = warp * 16;

  const auto load_stage = [&](int i) {
    const int key = range.at(i) * kN, keys = imin(kN, segment.key_length - key);
    const std::int64_t row = std::int64_t{segment.key_begin} + key;
    bf16* stage = stages + i % 2 * Config::kStage;
    load_tile<kN, kD>(stage, p.k + row * p.k_stride + kv_head * p.head_dim, p.k_stride, keys,
                      p.head_dim);
    load_tile<kN, kD>(stage + kN * kD, p.v + row * p.v_stride + kv_head * p.value_dim, p.v_stride,
                      keys, p.value_dim);
  };

  if (tiles > 0) {
    load_tile<kM, kD>(qr_tile, p.q + row_begin * p.q_stride + head * p.head_dim, p.q_stride, rows,
                      p.head_dim);
    load_tile<kM, kD>(r_tile, p.r + row_begin * p.r_stride + head * p.head_dim, p.r_stride, rows,
                      p.head_dim);
    load_stage(0);
    xpu::copy_async_commit();
  }

  const float to_log2 = p.scale * kLog2E;
  float out[2][kD / 8][4] = {};  // sums of p v and of p (u - c) v
  ProbeRow state[2];             // rows g and g + 8 of the warp's
  for (int i = 0; i < tiles; ++i) {
    // This stage has arrived for all threads, and all are done with the other one.
    xpu::copy_async_wait<0>();
    xpu::sync_block();
    if (i + 1 < tiles) {
      load_stage(i + 1);
      xpu::copy_async_commit();
    }
    const int key = range.at(i) * kN;
    const bf16* k_tile = stages + i % 2 * Config::kStage;
    float su[2][kN / 8][4];  // scores and u
    softmax::multiply_rows<kD, 2, kN>(su, qr_tile, warp_row, k_tile, kM);
    const bool edge = needs_mask(p.mask, segment.key_length, first, last, key, kN);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float s[kN / 4], u[kN / 4];
#pragma unroll
      for (int j = 0; j < kN / 4; ++j) {
        s[j] = su[0][j / 2][2 * half + j % 2];
        u[j] = su[1][j / 2][2 * half + j % 2];
      }
      if (edge) {
#pragma unroll
        for (int j = 0; j < kN / 4; ++j) {
          const int column = key + 8 * (j / 2) + 2 * t + j % 2;
          if (!visible(p.mask, first + warp_row + g + 8 * half, column, segment.key_length)) {
            s[j] = -kInf;
          }
        }
      }
      const Rescale rescale = state[half].add<4, true>(s, u, to_log2);
#pragma unroll
      for (int j = 0; j < kN / 4; ++j) {
        su[0][j / 2][2 * half + j % 2] = s[j];
        su[1][j / 2][2 * half + j % 2] = u[j];
      }
      if (xpu::ballot(rescale.factor != 1.0f)) {  // rare once the largest scores have been seen
#pragma unroll
        for (int n = 0; n < kD / 8; ++n) {
#pragma unroll
          for (int c = 0; c < 2; ++c) {
            float &plain = out[0][n][2 * half + c], &centred = out[1][n][2 * half + c];
            centred = (centred - rescale.shift * plain) * rescale.factor;
            plain *= rescale.factor;
          }
        }
      }
    }
    softmax::multiply_weights<kD, 2, kN>(out, su, k_tile + kN * kD);
  }

  // Both outputs pass through the rows of q and r that this warp alone reads, for whole 16-byte stores.
  float inverse[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    state[half].finish<4>();
    inverse[half] = state[half].inverse();
    const float gain = 1.0f + state[half].beyond();
    const int row = warp_row + g + 8 * half;
    if (t == 0 && row < rows) {
      p.lse[(row_begin + row) * p.heads + head] = state[half].lse();
      p.probe_mean[(row_begin + row) * p.heads + head] = state[half].probe_mean();
    }
#pragma unroll
    for (int n = 0; n < kD / 8; ++n) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float& x = out[1][n][2 * half + c];
        x = out[0][n][2 * half + c] * gain - x;
      }
    }
  }
  xpu::sync_warp();
  softmax::stage_rows<kD>(qr_tile, out[0], warp_row, inverse);
  softmax::stage_rows<kD>(r_tile, out[1], warp_row, inverse);
  xpu::sync_warp();
  softmax::store_rows<kD>(qr_tile, warp_row, 16,
                          p.intercept + row_begin * p.intercept_stride + head * p.value_dim,
                          p.intercept_stride, rows, p.value_dim);
  softmax::store_rows<kD>(r_tile, warp_row, 16,
                          p.out + row_begin * p.out_stride + head * p.value_dim, p.out_stride,
                          rows, p.value_dim);
}

void launch_fwd(const ParallaxFwdParams<bf16>& p, xpu::Stream stream) {
  with_instance(p.head_dim, p.value_dim, [&]<int kD> {
    using Config = FwdConfig<kD>;
    xpu::launch<parallax_fwd_bf16_kernel<Config>>(
        {blocks(p.schedule.query_tile_count, p.heads), kThreads, Config::kSharedBytes, stream}, p);
  });
}

}  // namespace lh::kernels::parallax
