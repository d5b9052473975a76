// Softmax attention backward for bf16 on mma.sync, from lse and delta = rowsum(dout out) - dlse.
//   p_ij = exp(s_ij - lse_i),  ds_ij = p_ij (dout_i v_j - delta_i)
//   dq_i = scale sum_j ds_ij k_j,  dk_j = scale sum_i ds_ij q_i,  dv_j = sum_i p_ij dout_i,
//   dbias_j = sum_i ds_ij outside the bias window
// Tiling: blocks of 4 warps with 16 rows each. One pass over query tiles of 64 gives dq; one over key
//   tiles of 64 gives dk, dv and dbias, where a block walks the queries of all heads of its group, so
//   that nothing is added up outside a block. The scores are computed twice, 7 products in place
//   of 5: the price of sums without atomics.
// Shared memory: the block's own two tiles and two stages of the passing ones, swizzled (tile.cuh), filled
//   by cp.async while the present stage is used.
// Registers: above heads of 128 dk and dv are made by two launches, as both would not fit.
// Numerics: products and sums fp32; p and ds are rounded to bf16 for the products they enter.
// Determinism: bitwise; every sum has one owner and a fixed order.
// Roofline, an unmeasured estimate: 14 d flops per visible pair, bound by tensor cores and shared memory
//   as the forward pass; 8 documents of 8192 tokens, 32 heads of 128: 15.4 TFLOP, 50 ms at 310 TFLOP/s.
//   Closed keys beyond the bias window cost the pass over queries nothing where there are copies of the
//   open ones (key_walk.h); that over keys leaves out whole tiles of them (query_walk.h).
#include "kernels/attention/softmax/dispatch.h"
#include "kernels/attention/softmax/key_walk.h"
#include "kernels/attention/softmax/query_walk.h"
#include "kernels/attention/softmax/tile.cuh"

namespace lh::kernels {

namespace softmax {

constexpr int kBwdRows = 16 * kWarps;  // of the block's own tile, in both passes

template <int kD_, int kDV_>
struct BwdConfig {
  static constexpr int kD = kD_, kDV = kDV_;
  static constexpr int kN = kD > 64 ? 32 : 64;  // rows that pass at a time
  static constexpr int kOwn = kBwdRows * (kD + kDV);
  static constexpr int kStage = kN * (kD + kDV);
  static constexpr std::size_t kSharedBytes = (kOwn + 2 * kStage) * sizeof(bf16);
};

template <class Config>
__global__ void __launch_bounds__(kThreads)
    attention_bwd_dq_bf16_kernel(const AttentionBwdParams<bf16> p) {
  constexpr int kD = Config::kD, kDV = Config::kDV, kN = Config::kN, kM = kBwdRows;
  XPU_DYN_SHARED(bf16, q_tile);
  XPU_SHARED(float, bias_tiles, [2][kN]);
  bf16* const do_tile = q_tile + kM * kD;
  bf16* const stages = q_tile + Config::kOwn;

  const int head = blockIdx.x % p.heads, kv_head = head / (p.heads / p.kv_heads);
  const AttentionQueryTile work = p.schedule.query_tiles[blockIdx.x / p.heads];
  const AttentionSegment segment = p.schedule.segments[work.segment];
  const int rows = imin(kM, segment.query_length - work.first);
  if (rows <= 0) return;  // an empty work item
  const int first = segment.query_offset + work.first, last = first + rows - 1;  // positions
  const std::int64_t row_begin = std::int64_t{segment.query_begin} + work.first;
  using Walk = KeyWalk<kN, true>;
  XPU_SHARED(Walk, shared_walk, [1]);  // the registers of heads of 256 do not hold one
  if (threadIdx.x == 0) shared_walk[0] = key_walk<kN, true>(p, segment, kv_head, first, last);
  xpu::sync_block();
  const Walk& walk = shared_walk[0];
  const int tiles = walk.count();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int warp_row = warp * 16;

  const auto load_stage = [&](int i, int stage_index) {
    const KeyTile at = walk.at(i);
    const KeyRows<bf16> from = rows_of(p, kv_head, at);
    const int keys = imin(kN, at.length - at.key);
    bf16* stage = stages + stage_index * Config::kStage;
    load_tile<kN, kD>(stage, from.k, from.k_stride, keys, p.head_dim);
    load_tile<kN, kDV>(stage + kN * kD, from.v, from.v_stride, keys, p.value_dim);
    if (p.bias) load_column<kN>(bias_tiles[stage_index], from.bias, p.kv_heads, keys);
  };

  load_tile<kM, kD>(q_tile, p.q + row_begin * p.q_stride + head * p.head_dim, p.q_stride, rows,
                    p.head_dim);
  load_tile<kM, kDV>(do_tile, p.dout + row_begin * p.dout_stride + head * p.value_dim,
                     p.dout_stride, rows, p.value_dim);
  if (tiles > 0) load_stage(0, 0);
  xpu::copy_async_commit();

  float lse[2], delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = warp_row + g + 8 * half;
    const float* stat = p.stats + std::int64_t{head} * p.query_rows + row_begin + row;
    lse[half] = row < rows ? stat[0] : kInf;
    delta[half] = row < rows ? stat[std::int64_t{p.heads} * p.query_rows] : 0.0f;
  }

  const float to_log2 = p.scale * kLog2E;
  float dq[1][kD / 8][4] = {};
  for (int i = 0; i < tiles; ++i) {
    // This stage has arrived for all threads, and all are done with the other one.
    xpu::copy_async_wait<0>();
    xpu::sync_block();
    if (i + 1 < tiles) {
      load_stage(i + 1, (i + 1) % 2);
      xpu::copy_async_commit();
    }
    const bf16* k_tile = stages + i % 2 * Config::kStage;
    float s[1][kN / 8][4], dp[1][kN / 8][4];
    multiply_rows<kD, 1, kN>(s, q_tile, warp_row, k_tile);
    multiply_rows<kDV, 1, kN>(dp, do_tile, warp_row, k_tile + kN * kD);
    const KeyTile at = walk.at(i);
    const bool edge = needs_mask(p.mask, at.length, first, last, at.key, kN);
#pragma unroll
    for (int n = 0; n < kN / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int column = 8 * n + 2 * t + e % 2, half = e / 2;
        const int position = first + warp_row + g + 8 * half;
        float x = s[0][n][e] * to_log2;
        if (p.bias && position - at.key - column >= p.mask.bias_window) {
          x += bias_tiles[i % 2][column] * kLog2E;
        }
        if (edge && !visible(p.mask, position, at.key + column, at.length)) x = -kInf;
        s[0][n][e] = xpu::fast_exp2(x - lse[half]) * (dp[0][n][e] - delta[half]);
      }
    }
    multiply_weights<kD, 1, kN>(dq, s, k_tile);
  }

  xpu::copy_async_wait<0>();
  xpu::sync_block();  // without keys, the q tile arrives only now
  const float factor[2] = {p.scale, p.scale};
  stage_rows<kD>(q_tile, dq[0], warp_row, factor);
  xpu::sync_warp();
  store_rows<kD>(q_tile, warp_row, 16, p.dq + row_begin * p.dq_stride + head * p.head_dim,
                 p.dq_stride, rows, p.head_dim);
}

enum class Gradients { kBoth, kKeys, kValues };

template <class Config, Gradients kWanted>
__global__ void __launch_bounds__(kThreads)
    attention_bwd_dkv_bf16_kernel(const AttentionBwdParams<bf16> p) {
  constexpr int kD = Config::kD, kDV = Config::kDV, kN = Config::kN, kM = kBwdRows;
  constexpr bool kKeys = kWanted != Gradients::kValues, kValues = kWanted != Gradients::kKeys;
  XPU_DYN_SHARED(bf16, k_tile);
  XPU_SHARED(float, stat_tiles, [2][2][kN]);  // stage; lse, delta
  bf16* const v_tile = k_tile + kM * kD;
  bf16* const stages = k_tile + Config::kOwn;

  const int kv_head = blockIdx.x % p.kv_heads, group = p.heads / p.kv_heads;
  const AttentionKeyTile work = p.schedule.key_tiles[blockIdx.x / p.kv_heads];
  if (work.count == 0) return;  // an empty work item
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int warp_row = warp * 16;

  const auto load_stage = [&](const QueryWalk& at, int stage_index) {
    const std::int64_t row = std::int64_t{at.segment.query_begin} + at.begin;
    bf16* stage = stages + stage_index * Config::kStage;
    load_tile<kN, kD>(stage, p.q + row * p.q_stride + at.head * p.head_dim, p.q_stride, at.rows(),
                      p.head_dim);
    load_tile<kN, kDV>(stage + kN * kD, p.dout + row * p.dout_stride + at.head * p.value_dim,
                       p.dout_stride, at.rows(), p.value_dim);
    const float* stats = p.stats + std::int64_t{at.head} * p.query_rows + row;
    load_column<kN>(stat_tiles[stage_index][0], stats, 1, at.rows());
    load_column<kN>(stat_tiles[stage_index][1], stats + std::int64_t{p.heads} * p.query_rows, 1,
                    at.rows());
  };

  load_tile<kM, kD>(k_tile, p.k + work.first * p.k_stride + kv_head * p.head_dim, p.k_stride,
                    work.count, p.head_dim);
  load_tile<kM, kDV>(v_tile, p.v + work.first * p.v_stride + kv_head * p.value_dim, p.v_stride,
                     work.count, p.value_dim);
  QueryWalk walk{&p.schedule, &p.mask, work, kv_head * group, (kv_head + 1) * group, kN};
  walk.closed = closed(p, kv_head, work);
  walk.start();
  if (!walk.done()) load_stage(walk, 0);
  xpu::copy_async_commit();

  float bias[2] = {};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = warp_row + g + 8 * half;
    if (p.bias && row < work.count) {
      bias[half] = p.bias[(std::int64_t{work.first} + row) * p.kv_heads + kv_head] * kLog2E;
    }
  }

  const float to_log2 = p.scale * kLog2E;
  float dk[1][kKeys ? kD / 8 : 1][4] = {}, dv[1][kValues ? kDV / 8 : 1][4] = {}, dbias[2] = {};
  for (int i = 0; !walk.done(); ++i) {
    const QueryWalk at = walk;
    walk.next();
    xpu::copy_async_wait<0>();
    xpu::sync_block();
    if (!walk.done()) {
      load_stage(walk, (i + 1) % 2);
      xpu::copy_async_commit();
    }
    const bf16* q_tile = stages + i % 2 * Config::kStage;
    const bf16* do_tile = q_tile + kN * kD;
    const float* lse = stat_tiles[i % 2][0];
    const float* delta = stat_tiles[i % 2][1];
    const int key = at.key_position(), query = at.segment.query_offset + at.begin;
    const int query_last = query + at.rows() - 1;
    // Rows are keys, columns queries.
    float s[1][kN / 8][4], dp[1][kN / 8][4];
    multiply_rows<kD, 1, kN>(s, k_tile, warp_row, q_tile);
    if constexpr (kKeys) multiply_rows<kDV, 1, kN>(dp, v_tile, warp_row, do_tile);
    const bool edge = at.rows() < kN || work.count < kM ||
                      needs_mask(p.mask, at.segment.key_length, query, query_last, key, kM);
#pragma unroll
    for (int n = 0; n < kN / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int column = 8 * n + 2 * t + e % 2, half = e / 2;
        const int row = warp_row + g + 8 * half, distance = query + column - key - row;
        float x = s[0][n][e] * to_log2;
        if (p.bias && distance >= p.mask.bias_window) x += bias[half];
        // Rows past the tile's end belong to other segments, columns past it to nothing.
        if (edge && (row >= work.count || column >= at.rows() ||
                     !visible(p.mask, query + column, key + row, at.segment.key_length))) {
          x = -kInf;
        }
        s[0][n][e] = xpu::fast_exp2(x - lse[column]);
        if constexpr (kKeys) {
          const float ds = s[0][n][e] * (dp[0][n][e] - delta[column]);
          dp[0][n][e] = ds;
          if (distance >= p.mask.bias_window) dbias[half] += ds;
        }
      }
    }
    if constexpr (kValues) multiply_weights<kDV, 1, kN>(dv, s, do_tile);
    if constexpr (kKeys) multiply_weights<kD, 1, kN>(dk, dp, q_tile);
  }

  xpu::copy_async_wait<0>();
  xpu::sync_block();  // without queries, the own tiles arrive only now
  const std::int64_t first = work.first;
  if constexpr (kKeys) {
    const float factor[2] = {p.scale, p.scale};
    stage_rows<kD>(k_tile, dk[0], warp_row, factor);
    xpu::sync_warp();
    store_rows<kD>(k_tile, warp_row, 16, p.dk + first * p.dk_stride + kv_head * p.head_dim,
                   p.dk_stride, work.count, p.head_dim);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float total = dbias[half];
      total += xpu::shuffle_xor(total, 1);
      total += xpu::shuffle_xor(total, 2);
      const int row = warp_row + g + 8 * half;
      if (p.dbias && t == 0 && row < work.count) {
        p.dbias[(first + row) * p.kv_heads + kv_head] = total;
      }
    }
  }
  if constexpr (kValues) {
    const float one[2] = {1.0f, 1.0f};
    stage_rows<kDV>(v_tile, dv[0], warp_row, one);
    xpu::sync_warp();
    store_rows<kDV>(v_tile, warp_row, 16, p.dv + first * p.dv_stride + kv_head * p.value_dim,
                    p.dv_stride, work.count, p.value_dim);
  }
}

void launch_bwd(const AttentionBwdParams<bf16>& p, xpu::Stream stream) {
  with_instance(p.head_dim, p.value_dim, [&]<int kD, int kDV> {
    using Config = BwdConfig<kD, kDV>;
    if (p.schedule.query_tile_count > 0) {
      xpu::launch<attention_bwd_dq_bf16_kernel<Config>>(
          {blocks(p.schedule.query_tile_count, p.heads), kThreads, Config::kSharedBytes, stream}, p);
    }
    if (p.schedule.key_tile_count == 0) return;
    const xpu::LaunchConfig keys{blocks(p.schedule.key_tile_count, p.kv_heads), kThreads,
                                 Config::kSharedBytes, stream};
    if constexpr (kD > 128) {
      xpu::launch<attention_bwd_dkv_bf16_kernel<Config, Gradients::kKeys>>(keys, p);
      xpu::launch<attention_bwd_dkv_bf16_kernel<Config, Gradients::kValues>>(keys, p);
    } else {
      xpu::launch<attention_bwd_dkv_bf16_kernel<Config, Gradients::kBoth>>(keys, p);
    }
  });
}

}  // namespace softmax

}  // namespace lh::kernels
