// Parallax backward for bf16 on mma.sync, from lse, probe_mean m and the row dots of bwd_prepare.cu:
//   t_i = dout_i out_i,  b_i = dout_i intercept_i,  a_ij = dout_i v_j,  e_ij = m_i - u_ij
//   ds_ij = p_ij (a_ij - t_i + e_ij (a_ij - b_i)),  du_ij = -p_ij (a_ij - b_i)
//   dq_i = scale sum_j ds_ij k_j,  dr_i = sum_j du_ij k_j
//   dk_j = sum_i (scale ds_ij q_i + du_ij r_i),  dv_j = sum_i p_ij (1 + e_ij) dout_i
// Tiling: as softmax/bwd_bf16.cu, one pass over query tiles of 64 for dq and dr, one over key tiles of 64
//   for dk and dv, where a block walks the queries of all heads of its group. q and r lie one after
//   the other, so that both scores share the fragments of k, and dk is one product over both.
//   11 products in place of the 8 of one pass: the price of sums without atomics.
// Shared memory: the block's own tiles (q, r, dout; or k, v) and two stages of the passing ones, swizzled
//   (softmax/tile.cuh), filled by cp.async while the present stage is used. d = 128: 80 KiB.
// Numerics: products and sums fp32; scale ds, du and p (1 + e) are rounded to bf16 for the products they
//   enter. e and a - b are differences of fp32 sums, already centred.
// Determinism: bitwise; every sum has one owner and a fixed order.
// Roofline, an unmeasured estimate: 22 d flops per visible pair, bound by tensor cores and shared memory as
//   the forward pass; 8 documents of 8192 tokens, 32 heads of 128: 24 TFLOP, 78 ms at 310 TFLOP/s.
#include "kernels/attention/parallax/dispatch.h"
#include "kernels/attention/parallax/row.cuh"
#include "kernels/attention/softmax/query_walk.h"
#include "kernels/attention/softmax/tile.cuh"

namespace lh::kernels::parallax {

using softmax::kThreads;
using softmax::kWarps;
using softmax::load_column;
using softmax::load_tile;
using softmax::QueryWalk;
using xpu::bf16;

template <int kD_>
struct BwdConfig {
  static constexpr int kD = kD_, kM = 16 * kWarps;
  static constexpr int kN = kD > 64 ? 32 : 64;         // keys that pass at a time
  static constexpr int kQueries = kD == 96 ? 16 : kN;  // queries; 32 rows of 96 spill
  static constexpr std::size_t kQueryBytes = (3 * kM + 2 * 2 * kN) * kD * sizeof(bf16);
  static constexpr std::size_t kKeyBytes = (2 * kM + 2 * 3 * kQueries) * kD * sizeof(bf16);
};

template <class Config>
__global__ void __launch_bounds__(kThreads)
    parallax_bwd_dqr_bf16_kernel(const ParallaxBwdParams<bf16> p) {
  constexpr int kD = Config::kD, kM = Config::kM, kN = Config::kN, kStage = 2 * kN * kD;
  XPU_DYN_SHARED(bf16, qr_tile);
  bf16* const r_tile = qr_tile + kM * kD;
  bf16* const do_tile = r_tile + kM * kD;
  bf16* const stages = do_tile + kM * kD;

  const int head = blockIdx.x % p.heads, kv_head = head / (p.heads / p.kv_heads);
  const AttentionQueryTile work = p.schedule.query_tiles[blockIdx.x / p.heads];
  const AttentionSegment segment = p.schedule.segments[work.segment];
  const int rows = imin(kM, segment.query_length - work.first);
  if (rows <= 0) return;  // an empty work item
  const int first = segment.query_offset + work.first, last = first + rows - 1;  // positions
  const std::int64_t row_begin = std::int64_t{segment.query_begin} + work.first;
  const KeyTileRange range = key_tile_range(p.mask, segment.key_length, first, last, kN);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int warp_row = warp * 16;

  const auto load_stage = [&](int i) {
    const int key = range.at(i) * kN, keys = imin(kN, segment.key_length - key);
    const std::int64_t row = std::int64_t{segment.key_begin} + key;
    bf16* stage = stages + i % 2 * kStage;
    load_tile<kN, kD>(stage, p.k + row * p.k_stride + kv_head * p.head_dim, p.k_stride, keys,
                      p.head_dim);
    load_tile<kN, kD>(stage + kN * kD, p.v + row * p.v_stride + kv_head * p.value_dim, p.v_stride,
                      keys, p.value_dim);
  };

  load_tile<kM, kD>(qr_tile, p.q + row_begin * p.q_stride + head * p.head_dim, p.q_stride, rows,
                    p.head_dim);
  load_tile<kM, kD>(r_tile, p.r + row_begin * p.r_stride + head * p.head_dim, p.r_stride, rows,
                    p.head_dim);
  load_tile<kM, kD>(do_tile, p.dout + row_begin * p.dout_stride + head * p.value_dim,
                    p.dout_stride, rows, p.value_dim);
  if (range.count() > 0) load_stage(0);
  xpu::copy_async_commit();

  RowStatistics statistics[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = warp_row + g + 8 * half;
    if (row < rows) {
      statistics[half].read(p.stats + std::int64_t{head} * p.query_rows + row_begin + row,
                            std::int64_t{p.heads} * p.query_rows);
    }
  }

  const float to_log2 = p.scale * kLog2E;
  float dqr[2][kD / 8][4] = {};
  for (int i = 0; i < range.count(); ++i) {
    // This stage has arrived for all threads, and all are done with the other one.
    xpu::copy_async_wait<0>();
    xpu::sync_block();
    if (i + 1 < range.count()) {
      load_stage(i + 1);
      xpu::copy_async_commit();
    }
    const int key = range.at(i) * kN;
    const bf16* k_tile = stages + i % 2 * kStage;
    float su[2][kN / 8][4], dp[1][kN / 8][4];
    softmax::multiply_rows<kD, 2, kN>(su, qr_tile, warp_row, k_tile, kM);
    softmax::multiply_rows<kD, 1, kN>(dp, do_tile, warp_row, k_tile + kN * kD);
    const bool edge = needs_mask(p.mask, segment.key_length, first, last, key, kN);
#pragma unroll
    for (int n = 0; n < kN / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int column = key + 8 * n + 2 * t + e % 2, half = e / 2;
        float x = su[0][n][e] * to_log2;
        if (edge &&
            !visible(p.mask, first + warp_row + g + 8 * half, column, segment.key_length)) {
          x = -kInf;
        }
        const PairGradient pair = pair_gradient(xpu::fast_exp2(x - statistics[half].lse),
                                                su[1][n][e], dp[0][n][e], statistics[half]);
        su[0][n][e] = pair.score;
        su[1][n][e] = pair.probe;
      }
    }
    softmax::multiply_weights<kD, 2, kN>(dqr, su, k_tile);
  }

  xpu::copy_async_wait<0>();
  xpu::sync_block();  // without keys, the own tiles arrive only now
  const float factor[2] = {p.scale, p.scale}, one[2] = {1.0f, 1.0f};
  softmax::stage_rows<kD>(qr_tile, dqr[0], warp_row, factor);
  softmax::stage_rows<kD>(r_tile, dqr[1], warp_row, one);
  xpu::sync_warp();
  softmax::store_rows<kD>(qr_tile, warp_row, 16,
                          p.dq + row_begin * p.dq_stride + head * p.head_dim, p.dq_stride, rows,
                          p.head_dim);
  softmax::store_rows<kD>(r_tile, warp_row, 16,
                          p.dr + row_begin * p.dr_stride + head * p.head_dim, p.dr_stride, rows,
                          p.head_dim);
}

template <class Config>
__global__ void __launch_bounds__(kThreads)
    parallax_bwd_dkv_bf16_kernel(const ParallaxBwdParams<bf16> p) {
  constexpr int kD = Config::kD, kM = Config::kM, kN = Config::kQueries, kStage = 3 * kN * kD;
  XPU_DYN_SHARED(bf16, k_tile);
  XPU_SHARED(float, stat_tiles, [2][4][kN]);  // stage; lse, total, plain, mean
  bf16* const v_tile = k_tile + kM * kD;
  bf16* const stages = v_tile + kM * kD;

  const int kv_head = blockIdx.x % p.kv_heads, group = p.heads / p.kv_heads;
  const AttentionKeyTile work = p.schedule.key_tiles[blockIdx.x / p.kv_heads];
  if (work.count == 0) return;  // an empty work item
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int warp_row = warp * 16;

  const auto load_stage = [&](const QueryWalk& at, int stage_index) {
    const std::int64_t row = std::int64_t{at.segment.query_begin} + at.begin;
    bf16* stage = stages + stage_index * kStage;
    load_tile<kN, kD>(stage, p.q + row * p.q_stride + at.head * p.head_dim, p.q_stride, at.rows(),
                      p.head_dim);
    load_tile<kN, kD>(stage + kN * kD, p.r + row * p.r_stride + at.head * p.head_dim, p.r_stride,
                      at.rows(), p.head_dim);
    load_tile<kN, kD>(stage + 2 * kN * kD, p.dout + row * p.dout_stride + at.head * p.value_dim,
                      p.dout_stride, at.rows(), p.value_dim);
    const float* stats = p.stats + std::int64_t{at.head} * p.query_rows + row;
    for (int i = 0; i < 4; ++i) {
      load_column<kN>(stat_tiles[stage_index][i], stats + i * std::int64_t{p.heads} * p.query_rows,
                      1, at.rows());
    }
  };

  load_tile<kM, kD>(k_tile, p.k + work.first * p.k_stride + kv_head * p.head_dim, p.k_stride,
                    work.count, p.head_dim);
  load_tile<kM, kD>(v_tile, p.v + work.first * p.v_stride + kv_head * p.value_dim, p.v_stride,
                    work.count, p.value_dim);
  QueryWalk walk{&p.schedule, &p.mask, work, kv_head * group, (kv_head + 1) * group, kN};
  walk.start();
  if (!walk.done()) load_stage(walk, 0);
  xpu::copy_async_commit();

  const float to_log2 = p.scale * kLog2E;
  float dk[1][kD / 8][4] = {}, dv[1][kD / 8][4] = {};
  for (int i = 0; !walk.done(); ++i) {
    const QueryWalk at = walk;
    walk.next();
    xpu::copy_async_wait<0>();
    xpu::sync_block();
    if (!walk.done()) {
      load_stage(walk, (i + 1) % 2);
      xpu::copy_async_commit();
    }
    const bf16* qr_tile = stages + i % 2 * kStage;
    const bf16* do_tile = qr_tile + 2 * kN * kD;
    const auto& stats = stat_tiles[i % 2];
    const int key = at.key_position(), query = at.segment.query_offset + at.begin;
    const int query_last = query + at.rows() - 1;
    // Rows are keys, columns queries; of su first the queries', then the probes'.
    float su[1][2 * kN / 8][4], dp[1][kN / 8][4];
    softmax::multiply_rows<kD, 1, 2 * kN>(su, k_tile, warp_row, qr_tile);
    softmax::multiply_rows<kD, 1, kN>(dp, v_tile, warp_row, do_tile);
    const bool edge = at.rows() < kN || work.count < kM ||
                      needs_mask(p.mask, at.segment.key_length, query, query_last, key, kM);
#pragma unroll
    for (int n = 0; n < kN / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int column = 8 * n + 2 * t + e % 2, row = warp_row + g + e / 2 * 8;
        float x = su[0][n][e] * to_log2;
        // Rows past the tile's end belong to other segments, columns past it to nothing.
        if (edge && (row >= work.count || column >= at.rows() ||
                     !visible(p.mask, query + column, key + row, at.segment.key_length))) {
          x = -kInf;
        }
        const RowStatistics statistics{stats[0][column], stats[1][column], stats[2][column],
                                       stats[3][column]};
        float& u = su[0][kN / 8 + n][e];
        const PairGradient pair =
            pair_gradient(xpu::fast_exp2(x - statistics.lse), u, dp[0][n][e], statistics);
        su[0][n][e] = p.scale * pair.score;
        u = pair.probe;
        dp[0][n][e] = pair.value;
      }
    }
    softmax::multiply_weights<kD, 1, kN>(dv, dp, do_tile);
    softmax::multiply_weights<kD, 1, 2 * kN>(dk, su, qr_tile);
  }

  xpu::copy_async_wait<0>();
  xpu::sync_block();  // without queries, the own tiles arrive only now
  const std::int64_t first = work.first;
  const float one[2] = {1.0f, 1.0f};
  softmax::stage_rows<kD>(k_tile, dk[0], warp_row, one);
  softmax::stage_rows<kD>(v_tile, dv[0], warp_row, one);
  xpu::sync_warp();
  softmax::store_rows<kD>(k_tile, warp_row, 16,
                          p.dk + first * p.dk_stride + kv_head * p.head_dim, p.dk_stride,
                          work.count, p.head_dim);
  softmax::store_rows<kD>(v_tile, warp_row, 16,
                          p.dv + first * p.dv_stride + kv_head * p.value_dim, p.dv_stride,
                          work.count, p.value_dim);
}

void launch_bwd(const ParallaxBwdParams<bf16>& p, xpu::Stream stream) {
  with_instance(p.head_dim, p.value_dim, [&]<int kD> {
    using Config = BwdConfig<kD>;
    if (p.schedule.query_tile_count > 0) {
      xpu::launch<parallax_bwd_dqr_bf16_kernel<Config>>(
          {blocks(p.schedule.query_tile_count, p.heads), kThreads, Config::kQueryBytes, stream}, p);
    }
    if (p.schedule.key_tile_count > 0) {
      xpu::launch<parallax_bwd_dkv_bf16_kernel<Config>>(
          {blocks(p.schedule.key_tile_count, p.kv_heads), kThreads, Config::kKeyBytes, stream}, p);
    }
  });
}

}  // namespace lh::kernels::parallax
