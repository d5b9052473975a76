// Softmax attention forward for bf16 on mma.sync, after FlashAttention-2 (Dao 2023).
//   s_ij = scale q_i k_j + bias_j,  p_ij = exp(s_ij - lse_i),  out_i = sum_j p_ij v_j
// Tiling: a block of 4 warps per (query tile, head), the heads of a tile in neighbouring blocks so
//   that a group shares its keys in L2. A warp owns 16 or 32 query rows and keeps their output,
//   maximum and sum in registers; the keys stream past in tiles of kN.
// Shared memory: q [kM][kD], then two stages of k [kN][kD], v [kN][kDV], bias [kN]. All tiles are
//   swizzled (tile.cuh), so no ldmatrix has a bank conflict. cp.async fills the next stage while
//   the present one is used: one barrier per key tile. The output leaves through the q tile.
// Masks: key tiles outside the mask are not visited (mask.h); only tiles on an edge of the mask run
//   the masking code. Closed keys outside the bias window are not visited where there are copies of the
//   open ones (key_walk.h).
// Numerics: scores and sums fp32, in units of log 2 so that one fused multiply-add feeds ex2;
//   p is rounded to bf16 for the second product, the row sum is not.
// Determinism: bitwise; key tiles in the order of the walk.
// Roofline, an unmeasured estimate: 4 d flops per visible pair. 8 documents of 8192 tokens, 32
//   heads of 128, causal: 4.4 TFLOP. mma.sync on H200 reaches at most about 60 % of the 989
//   TFLOP/s of wgmma; at 350 TFLOP/s 12.6 ms. Bound by tensor cores and shared memory (32 rows a
//   warp halve its reads); global traffic is 2 GB, 0.4 ms. A bias adds an operation per pair. With 10 % of
//   the keys open and a bias window of 128, the same call visits a tenth of 4096 keys and some 250 near
//   ones per query tile: 17 % of the flops, 2.1 ms, after 0.1 ms of copying (open_keys.cu).
#include "kernels/attention/softmax/dispatch.h"
#include "kernels/attention/softmax/key_walk.h"
#include "kernels/attention/softmax/tile.cuh"

namespace lh::kernels {

namespace softmax {

template <int kD_, int kDV_>
struct FwdConfig {
  static constexpr int kD = kD_, kDV = kDV_;
  static constexpr int kAtoms = kD > 128 ? 1 : 2;  // 16-row parts of a warp, as registers allow
  static constexpr int kM = 16 * kAtoms * kWarps;
  static constexpr int kN = kD > 64 ? 32 : 64;               // likewise
  static constexpr int kQuery = kM * (kD > kDV ? kD : kDV);  // elements; also stages the output
  static constexpr int kStage = kN * (kD + kDV);
  static constexpr std::size_t kSharedBytes = (kQuery + 2 * kStage) * sizeof(bf16);
};

template <class Config, bool kBias>
__global__ void __launch_bounds__(kThreads)
    attention_fwd_bf16_kernel(const AttentionFwdParams<bf16> p) {
  constexpr int kD = Config::kD, kDV = Config::kDV, kAtoms = Config::kAtoms;
  constexpr int kM = Config::kM, kN = Config::kN;
  XPU_DYN_SHARED(bf16, q_tile);
  XPU_SHARED(float, bias_tiles, [2][kBias ? kN : 1]);
  bf16* const stages = q_tile + Config::kQuery;

  const int head = blockIdx.x % p.heads, kv_head = head / (p.heads / p.kv_heads);
  const AttentionQueryTile work = p.schedule.query_tiles[blockIdx.x / p.heads];
  const AttentionSegment segment = p.schedule.segments[work.segment];
  const int rows = imin(kM, segment.query_length - work.first);
  if (rows <= 0) return;  // an empty work item
  const int first = segment.query_offset + work.first, last = first + rows - 1;  // positions
  const std::int64_t row_begin = std::int64_t{segment.query_begin} + work.first;
  const auto walk = key_walk<kN, kBias>(p, segment, kv_head, first, last);
  const int tiles = walk.count();

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int warp_row = warp * 16 * kAtoms;

  const auto load_stage = [&](int i, int stage_index) {
    const KeyTile at = walk.at(i);
    const KeyRows<bf16> from = rows_of(p, kv_head, at);
    const int keys = imin(kN, at.length - at.key);
    bf16* stage = stages + stage_index * Config::kStage;
    load_tile<kN, kD>(stage, from.k, from.k_stride, keys, p.head_dim);
    load_tile<kN, kDV>(stage + kN * kD, from.v, from.v_stride, keys, p.value_dim);
    if constexpr (kBias) load_column<kN>(bias_tiles[stage_index], from.bias, p.kv_heads, keys);
  };

  if (tiles > 0) {
    load_tile<kM, kD>(q_tile, p.q + row_begin * p.q_stride + head * p.head_dim, p.q_stride, rows,
                      p.head_dim);
    load_stage(0, 0);
    xpu::copy_async_commit();
  }

  // Scores become units of log 2 here, or by the bias, which needs them before the maximum.
  const float to_log2 = p.scale * kLog2E, factor = kBias ? 1.0f : to_log2;
  float out[kAtoms][kDV / 8][4] = {};
  float maximum[kAtoms][2], sum[kAtoms][2];
#pragma unroll
  for (int m = 0; m < kAtoms; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) maximum[m][half] = -kInf, sum[m][half] = 0.0f;
  }

  for (int i = 0; i < tiles; ++i) {
    // This stage has arrived for all threads, and all are done with the other one.
    xpu::copy_async_wait<0>();
    xpu::sync_block();
    if (i + 1 < tiles) {
      load_stage(i + 1, (i + 1) % 2);
      xpu::copy_async_commit();
    }
    const KeyTile at = walk.at(i);
    const bf16* k_tile = stages + i % 2 * Config::kStage;
    float s[kAtoms][kN / 8][4];
    multiply_rows<kD, kAtoms, kN>(s, q_tile, warp_row, k_tile);

    if constexpr (kBias) {
      const float* bias = bias_tiles[i % 2];
#pragma unroll
      for (int n = 0; n < kN / 8; ++n) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const int j = 8 * n + 2 * t + c;
          const float add = bias[j] * kLog2E;
#pragma unroll
          for (int m = 0; m < kAtoms; ++m) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              const int distance = first + warp_row + 16 * m + g + 8 * half - at.key - j;
              float& x = s[m][n][2 * half + c];
              x = x * to_log2 + (distance < p.mask.bias_window ? 0.0f : add);
            }
          }
        }
      }
    }
    if (needs_mask(p.mask, at.length, first, last, at.key, kN)) {
#pragma unroll
      for (int m = 0; m < kAtoms; ++m) {
#pragma unroll
        for (int n = 0; n < kN / 8; ++n) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const int position = first + warp_row + 16 * m + g + e / 2 * 8;
            const int j = at.key + 8 * n + 2 * t + e % 2;
            if (!visible(p.mask, position, j, at.length)) s[m][n][e] = -kInf;
          }
        }
      }
    }

    // Online softmax; the sum is kept per lane and reduced at the end.
#pragma unroll
    for (int m = 0; m < kAtoms; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float top = s[m][0][2 * half];
#pragma unroll
        for (int n = 0; n < kN / 8; ++n) {
          top = fmaxf(top, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
        }
        top = fmaxf(top, xpu::shuffle_xor(top, 1));
        top = fmaxf(top, xpu::shuffle_xor(top, 2));
        top = fmaxf(maximum[m][half], top * factor);
        const float base = top == -kInf ? 0.0f : top;  // a row that saw nothing so far
        const float correction = xpu::fast_exp2(maximum[m][half] - base);
        maximum[m][half] = top;
        float partial = 0.0f;
#pragma unroll
        for (int n = 0; n < kN / 8; ++n) {
#pragma unroll
          for (int c = 0; c < 2; ++c) {
            float& x = s[m][n][2 * half + c];
            x = xpu::fast_exp2(x * factor - base);
            partial += x;
          }
        }
        sum[m][half] = sum[m][half] * correction + partial;
        if (xpu::ballot(correction != 1.0f)) {  // rare once the largest scores have been seen
#pragma unroll
          for (int n = 0; n < kDV / 8; ++n) {
            out[m][n][2 * half] *= correction;
            out[m][n][2 * half + 1] *= correction;
          }
        }
      }
    }
    multiply_weights<kDV, kAtoms, kN>(out, s, k_tile + kN * kD);
  }

  // Normalise, write lse, and pass the output through shared memory for whole 16-byte stores.
  xpu::sync_block();  // a warp's staged rows may cover q rows of another warp
#pragma unroll
  for (int m = 0; m < kAtoms; ++m) {
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float total = sum[m][half];
      total += xpu::shuffle_xor(total, 1);
      total += xpu::shuffle_xor(total, 2);
      inverse[half] = total == 0.0f ? 0.0f : 1.0f / total;
      const int row = warp_row + 16 * m + g + 8 * half;
      if (t == 0 && row < rows) {
        p.lse[(row_begin + row) * p.heads + head] =
            total == 0.0f ? -kInf : maximum[m][half] * kLn2 + logf(total);
      }
      if (p.partial && row < rows) {
        float* line = p.partial + (row_begin + row) * p.out_stride + head * p.value_dim;
#pragma unroll
        for (int n = 0; n < kDV / 8; ++n) {
          if (8 * n >= p.value_dim) break;
          xpu::store_vec(line + 8 * n + 2 * t,
                         xpu::Vec<float, 2>{{out[m][n][2 * half] * inverse[half],
                                             out[m][n][2 * half + 1] * inverse[half]}});
        }
      }
    }
    stage_rows<kDV>(q_tile, out[m], warp_row + 16 * m, inverse);
  }
  if (p.partial) return;
  xpu::sync_warp();
  store_rows<kDV>(q_tile, warp_row, 16 * kAtoms,
                  p.out + row_begin * p.out_stride + head * p.value_dim, p.out_stride, rows,
                  p.value_dim);
}

int fwd_tile_bf16(int head_dim, int value_dim) {
  int tile = 0;
  with_instance(head_dim, value_dim, [&]<int kD, int kDV> { tile = FwdConfig<kD, kDV>::kM; });
  return tile;
}

void launch_fwd(const AttentionFwdParams<bf16>& p, xpu::Stream stream) {
  with_instance(p.head_dim, p.value_dim, [&]<int kD, int kDV> {
    using Config = FwdConfig<kD, kDV>;
    const xpu::LaunchConfig launch{blocks(p.schedule.query_tile_count, p.heads), kThreads,
                                   Config::kSharedBytes, stream};
    if (p.bias) {
      xpu::launch<attention_fwd_bf16_kernel<Config, true>>(launch, p);
    } else {
      xpu::launch<attention_fwd_bf16_kernel<Config, false>>(launch, p);
    }
  });
}

}  // namespace softmax

}  // namespace lh::kernels
