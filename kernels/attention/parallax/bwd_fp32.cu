// Parallax backward in fp32 on plain multiply-adds; formulas as bwd_bf16.cu.
// Tiling: one pass over query tiles gives dq and dr, one over key tiles gives dk and dv; blocks of 256
//   threads and tiles of 32 in both (softmax/fp32_tile.h). The query heads of a group are added up
//   within the block of their key head.
// Shared memory: five tiles and a 32 x 33 tile of weights: 87 KiB at d = 128.
// Numerics: fp32 throughout. Determinism: bitwise; every sum has one owner and a fixed order.
// Roofline, an unmeasured estimate: 22 d flops per visible pair at about half of 67 TFLOP/s.
#include "kernels/attention/parallax/dispatch.h"
#include "kernels/attention/parallax/row.cuh"
#include "kernels/attention/softmax/fp32_tile.h"
#include "kernels/attention/softmax/query_walk.h"

namespace lh::kernels::parallax {

using namespace softmax::fp32;  // tiles and products

template <int kC>
__global__ void __launch_bounds__(kThreads, 1)
    parallax_bwd_dqr_fp32_kernel(const ParallaxBwdParams<float> p) {
  XPU_DYN_SHARED(float, q_tile);
  XPU_SHARED(float, weights, [kTile * (kTile + 1)]);
  float* const r_tile = q_tile + tile_floats(p.head_dim);
  float* const k_tile = r_tile + tile_floats(p.head_dim);
  float* const v_tile = k_tile + tile_floats(p.head_dim);
  float* const do_tile = v_tile + tile_floats(p.value_dim);

  const int head = blockIdx.x % p.heads, kv_head = head / (p.heads / p.kv_heads);
  const AttentionQueryTile work = p.schedule.query_tiles[blockIdx.x / p.heads];
  const AttentionSegment segment = p.schedule.segments[work.segment];
  const int rows = imin(kTile, segment.query_length - work.first);
  if (rows <= 0) return;  // an empty work item
  const int first = segment.query_offset + work.first, last = first + rows - 1;
  const std::int64_t row_begin = std::int64_t{segment.query_begin} + work.first;
  const KeyTileRange range = key_tile_range(p.mask, segment.key_length, first, last, kTile);

  load_tile(q_tile, p.q + row_begin * p.q_stride + head * p.head_dim, p.q_stride, rows, p.head_dim);
  load_tile(r_tile, p.r + row_begin * p.r_stride + head * p.head_dim, p.r_stride, rows, p.head_dim);
  load_tile(do_tile, p.dout + row_begin * p.dout_stride + head * p.value_dim, p.dout_stride, rows,
            p.value_dim);
  RowStatistics statistics[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = own_y() + 16 * i;
    if (row < rows) {
      statistics[i].read(p.stats + std::int64_t{head} * p.query_rows + row_begin + row,
                         std::int64_t{p.heads} * p.query_rows);
    }
  }

  float dq[2][kC][4] = {}, dr[2][kC][4] = {};
  for (int tile = 0; tile < range.count(); ++tile) {
    const int key = range.at(tile) * kTile, keys = imin(kTile, segment.key_length - key);
    const std::int64_t key_row = std::int64_t{segment.key_begin} + key;
    xpu::sync_block();
    load_tile(k_tile, p.k + key_row * p.k_stride + kv_head * p.head_dim, p.k_stride, keys,
              p.head_dim);
    load_tile(v_tile, p.v + key_row * p.v_stride + kv_head * p.value_dim, p.v_stride, keys,
              p.value_dim);
    xpu::sync_block();
    float s[2][2], u[2][2], dp[2][2];
    dot(s, q_tile, k_tile, p.head_dim);
    dot(u, r_tile, k_tile, p.head_dim);
    dot(dp, do_tile, v_tile, p.value_dim);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float x = score(p.mask, s[i][j], p.scale, 0.0f, first + own_y() + 16 * i,
                              key + own_x() + 16 * j, segment.key_length);
        const PairGradient pair = pair_gradient(exp2f(x - statistics[i].lse), u[i][j], dp[i][j],
                                                statistics[i]);
        s[i][j] = pair.score;
        u[i][j] = pair.probe;
      }
    }
    put_weights(weights, s);
    multiply<kC>(dq, weights, k_tile, p.head_dim);
    put_weights(weights, u);
    multiply<kC>(dr, weights, k_tile, p.head_dim);
  }
  const float factor[2] = {p.scale, p.scale}, one[2] = {1.0f, 1.0f};
  store_rows<kC>(p.dq + row_begin * p.dq_stride + head * p.head_dim, p.dq_stride, dq, factor, rows,
                 p.head_dim);
  store_rows<kC>(p.dr + row_begin * p.dr_stride + head * p.head_dim, p.dr_stride, dr, one, rows,
                 p.head_dim);
}

template <int kC>
__global__ void __launch_bounds__(kThreads, 1)
    parallax_bwd_dkv_fp32_kernel(const ParallaxBwdParams<float> p) {
  XPU_DYN_SHARED(float, k_tile);
  XPU_SHARED(float, weights, [kTile * (kTile + 1)]);
  float* const q_tile = k_tile + tile_floats(p.head_dim);
  float* const r_tile = q_tile + tile_floats(p.head_dim);
  float* const v_tile = r_tile + tile_floats(p.head_dim);
  float* const do_tile = v_tile + tile_floats(p.value_dim);

  const int kv_head = blockIdx.x % p.kv_heads, group = p.heads / p.kv_heads;
  const AttentionKeyTile work = p.schedule.key_tiles[blockIdx.x / p.kv_heads];
  if (work.count == 0) return;  // an empty work item
  load_tile(k_tile, p.k + work.first * p.k_stride + kv_head * p.head_dim, p.k_stride, work.count,
            p.head_dim);
  load_tile(v_tile, p.v + work.first * p.v_stride + kv_head * p.value_dim, p.v_stride, work.count,
            p.value_dim);

  float dk[2][kC][4] = {}, dv[2][kC][4] = {};
  softmax::QueryWalk at{&p.schedule, &p.mask, work, kv_head * group, (kv_head + 1) * group, kTile};
  for (at.start(); !at.done(); at.next()) {
    const std::int64_t row = std::int64_t{at.segment.query_begin} + at.begin;
    xpu::sync_block();
    load_tile(q_tile, p.q + row * p.q_stride + at.head * p.head_dim, p.q_stride, at.rows(),
              p.head_dim);
    load_tile(r_tile, p.r + row * p.r_stride + at.head * p.head_dim, p.r_stride, at.rows(),
              p.head_dim);
    load_tile(do_tile, p.dout + row * p.dout_stride + at.head * p.value_dim, p.dout_stride,
              at.rows(), p.value_dim);
    xpu::sync_block();
    // Rows are keys, columns queries.
    float s[2][2], u[2][2], dp[2][2];
    dot(s, k_tile, q_tile, p.head_dim);
    dot(u, k_tile, r_tile, p.head_dim);
    dot(dp, v_tile, do_tile, p.value_dim);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int column = own_x() + 16 * j;
      RowStatistics statistics;
      if (column < at.rows()) {
        statistics.read(p.stats + std::int64_t{at.head} * p.query_rows + row + column,
                        std::int64_t{p.heads} * p.query_rows);
      }
      const int query = at.segment.query_offset + at.begin + column;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int key = own_y() + 16 * i;
        // Rows past the tile's end belong to other segments.
        const float x = key < work.count ? score(p.mask, s[i][j], p.scale, 0.0f, query,
                                                 at.key_position() + key, at.segment.key_length)
                                         : -kInf;
        const PairGradient pair =
            pair_gradient(exp2f(x - statistics.lse), u[i][j], dp[i][j], statistics);
        s[i][j] = p.scale * pair.score;
        u[i][j] = pair.probe;
        dp[i][j] = pair.value;
      }
    }
    put_weights(weights, dp);
    multiply<kC>(dv, weights, do_tile, p.value_dim);
    put_weights(weights, s);
    multiply<kC>(dk, weights, q_tile, p.head_dim);
    put_weights(weights, u);
    multiply<kC>(dk, weights, r_tile, p.head_dim);
  }
  const float one[2] = {1.0f, 1.0f};
  store_rows<kC>(p.dk + work.first * p.dk_stride + kv_head * p.head_dim, p.dk_stride, dk, one,
                 work.count, p.head_dim);
  store_rows<kC>(p.dv + work.first * p.dv_stride + kv_head * p.value_dim, p.dv_stride, dv, one,
                 work.count, p.value_dim);
}

template <int kC>
void run_bwd(const ParallaxBwdParams<float>& p, xpu::Stream stream) {
  const auto bytes = sizeof(float) * static_cast<std::size_t>(3 * tile_floats(p.head_dim) +
                                                              2 * tile_floats(p.value_dim));
  if (p.schedule.query_tile_count > 0) {
    xpu::launch<parallax_bwd_dqr_fp32_kernel<kC>>(
        {blocks(p.schedule.query_tile_count, p.heads), kThreads, bytes, stream}, p);
  }
  if (p.schedule.key_tile_count > 0) {
    xpu::launch<parallax_bwd_dkv_fp32_kernel<kC>>(
        {blocks(p.schedule.key_tile_count, p.kv_heads), kThreads, bytes, stream}, p);
  }
}

void launch_bwd(const ParallaxBwdParams<float>& p, xpu::Stream stream) {
  if (imax(p.head_dim, p.value_dim) <= 64) {
    run_bwd<1>(p, stream);
  } else {
    run_bwd<2>(p, stream);
  }
}

}  // namespace lh::kernels::parallax
