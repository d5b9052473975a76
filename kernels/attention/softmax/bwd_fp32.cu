// Softmax attention backward in fp32 on plain multiply-adds, from lse and delta = rowsum(dout out).
//   p_ij = exp(s_ij - lse_i),  ds_ij = p_ij (dout_i v_j - delta_i)
//   dq_i = scale sum_j ds_ij k_j,  dk_j = scale sum_i ds_ij q_i,  dv_j = sum_i p_ij dout_i,
//   dbias_j = sum_i ds_ij outside the bias window
// Tiling: one pass over query tiles gives dq, one over key tiles gives dk, dv and dbias; blocks of
//   256 threads and tiles of 32 in both (fp32_tile.h). The query heads of a group are added up
//   within the block of their key head.
// Shared memory: four tiles and a 32 x 33 tile of weights: 70 KiB at d = 128.
// Numerics: fp32 throughout. Determinism: bitwise; every sum has one owner and a fixed order.
// Roofline, an unmeasured estimate: 14 d flops per visible pair at about half of 67 TFLOP/s.
#include "kernels/attention/softmax/dispatch.h"
#include "kernels/attention/softmax/fp32_tile.h"
#include "kernels/attention/softmax/key_walk.h"
#include "kernels/attention/softmax/query_walk.h"

namespace lh::kernels::softmax {

namespace fp32 {

template <int kC>
__global__ void __launch_bounds__(kThreads, 1)
    attention_bwd_dq_fp32_kernel(const AttentionBwdParams<float> p) {
  XPU_DYN_SHARED(float, q_tile);
  XPU_SHARED(float, weights, [kTile * (kTile + 1)]);
  float* const k_tile = q_tile + tile_floats(p.head_dim);
  float* const v_tile = k_tile + tile_floats(p.head_dim);
  float* const do_tile = v_tile + tile_floats(p.value_dim);

  const int head = blockIdx.x % p.heads, kv_head = head / (p.heads / p.kv_heads);
  const AttentionQueryTile work = p.schedule.query_tiles[blockIdx.x / p.heads];
  const AttentionSegment segment = p.schedule.segments[work.segment];
  const int rows = imin(kTile, segment.query_length - work.first);
  if (rows <= 0) return;  // an empty work item
  const int first = segment.query_offset + work.first, last = first + rows - 1;
  const std::int64_t row_begin = std::int64_t{segment.query_begin} + work.first;
  const auto walk = key_walk<kTile, true>(p, segment, kv_head, first, last);
  const int tiles = walk.count();

  load_tile(q_tile, p.q + row_begin * p.q_stride + head * p.head_dim, p.q_stride, rows, p.head_dim);
  load_tile(do_tile, p.dout + row_begin * p.dout_stride + head * p.value_dim, p.dout_stride, rows,
            p.value_dim);
  float lse[2], delta[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = own_y() + 16 * i;
    const float* stat = p.stats + std::int64_t{head} * p.query_rows + row_begin + row;
    lse[i] = row < rows ? stat[0] : kInf;
    delta[i] = row < rows ? stat[std::int64_t{p.heads} * p.query_rows] : 0.0f;
  }

  float dq[2][kC][4] = {};
  for (int tile = 0; tile < tiles; ++tile) {
    const KeyTile at = walk.at(tile);
    const KeyRows<float> from = rows_of(p, kv_head, at);
    const int keys = imin(kTile, at.length - at.key);
    xpu::sync_block();
    load_tile(k_tile, from.k, from.k_stride, keys, p.head_dim);
    load_tile(v_tile, from.v, from.v_stride, keys, p.value_dim);
    xpu::sync_block();
    float s[2][2], dp[2][2];
    dot(s, q_tile, k_tile, p.head_dim);
    dot(dp, do_tile, v_tile, p.value_dim);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int column = own_x() + 16 * j;
      const float bias = p.bias && column < keys ? from.bias[std::int64_t{column} * p.kv_heads] : 0.0f;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float x = score(p.mask, s[i][j], p.scale, bias, first + own_y() + 16 * i,
                              at.key + column, at.length);
        s[i][j] = exp2f(x - lse[i]) * (dp[i][j] - delta[i]);
      }
    }
    put_weights(weights, s);
    multiply<kC>(dq, weights, k_tile, p.head_dim);
  }
  const float factor[2] = {p.scale, p.scale};
  store_rows<kC>(p.dq + row_begin * p.dq_stride + head * p.head_dim, p.dq_stride, dq, factor, rows,
                 p.head_dim);
}

template <int kC, int kCV>
__global__ void __launch_bounds__(kThreads, 1)
    attention_bwd_dkv_fp32_kernel(const AttentionBwdParams<float> p) {
  XPU_DYN_SHARED(float, k_tile);
  XPU_SHARED(float, weights, [kTile * (kTile + 1)]);
  float* const q_tile = k_tile + tile_floats(p.head_dim);
  float* const v_tile = q_tile + tile_floats(p.head_dim);
  float* const do_tile = v_tile + tile_floats(p.value_dim);

  const int kv_head = blockIdx.x % p.kv_heads, group = p.heads / p.kv_heads;
  const AttentionKeyTile work = p.schedule.key_tiles[blockIdx.x / p.kv_heads];
  if (work.count == 0) return;  // an empty work item
  load_tile(k_tile, p.k + work.first * p.k_stride + kv_head * p.head_dim, p.k_stride, work.count,
            p.head_dim);
  load_tile(v_tile, p.v + work.first * p.v_stride + kv_head * p.value_dim, p.v_stride, work.count,
            p.value_dim);
  float bias[2] = {}, dbias[2] = {};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = own_y() + 16 * i;
    if (p.bias && row < work.count) {
      bias[i] = p.bias[(std::int64_t{work.first} + row) * p.kv_heads + kv_head];
    }
  }

  float dk[2][kC][4] = {}, dv[2][kCV][4] = {};
  for (int n = 0; n < work.segments_count; ++n) {
    const AttentionSegment segment =
        p.schedule.segments[p.schedule.key_segments[work.segments_begin + n]];
    const int key = work.first - segment.key_begin;  // position of the tile's first key
    const QueryRange queries =
        query_range(p.mask, segment, key, key + work.count, closed(p, kv_head, work));
    for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      const float* stats = p.stats + std::int64_t{head} * p.query_rows + segment.query_begin;
      const float* deltas = stats + std::int64_t{p.heads} * p.query_rows;
      for (int begin = queries.begin; begin < queries.end; begin += kTile) {
        const int rows = imin(kTile, queries.end - begin);
        const std::int64_t row = std::int64_t{segment.query_begin} + begin;
        xpu::sync_block();
        load_tile(q_tile, p.q + row * p.q_stride + head * p.head_dim, p.q_stride, rows, p.head_dim);
        load_tile(do_tile, p.dout + row * p.dout_stride + head * p.value_dim, p.dout_stride, rows,
                  p.value_dim);
        xpu::sync_block();
        // Rows are keys, columns queries.
        float s[2][2], dp[2][2];
        dot(s, k_tile, q_tile, p.head_dim);
        dot(dp, v_tile, do_tile, p.value_dim);
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const int column = own_x() + 16 * j;
          const float lse = column < rows ? stats[begin + column] : kInf;
          const float delta = column < rows ? deltas[begin + column] : 0.0f;
          const int query = segment.query_offset + begin + column;
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const int position = key + own_y() + 16 * i;
            // Rows past the tile's end belong to other segments.
            const bool own = own_y() + 16 * i < work.count;
            const float x = own ? score(p.mask, s[i][j], p.scale, bias[i], query, position,
                                        segment.key_length)
                                : -kInf;
            s[i][j] = exp2f(x - lse);
            dp[i][j] = s[i][j] * (dp[i][j] - delta);
            if (query - position >= p.mask.bias_window) dbias[i] += dp[i][j];
          }
        }
        put_weights(weights, s);
        multiply<kCV>(dv, weights, do_tile, p.value_dim);
        put_weights(weights, dp);
        multiply<kC>(dk, weights, q_tile, p.head_dim);
      }
    }
  }
  const float factor[2] = {p.scale, p.scale}, one[2] = {1.0f, 1.0f};
  store_rows<kC>(p.dk + work.first * p.dk_stride + kv_head * p.head_dim, p.dk_stride, dk, factor,
                 work.count, p.head_dim);
  store_rows<kCV>(p.dv + work.first * p.dv_stride + kv_head * p.value_dim, p.dv_stride, dv, one,
                  work.count, p.value_dim);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = own_y() + 16 * i;
    const float total = row_sum(dbias[i]);
    if (p.dbias && own_x() == 0 && row < work.count) {
      p.dbias[(std::int64_t{work.first} + row) * p.kv_heads + kv_head] = total;
    }
  }
}

/// kC and kCV: groups of 64 columns of keys and values.
template <int kC, int kCV>
void run_bwd(const AttentionBwdParams<float>& p, xpu::Stream stream) {
  const auto floats =
      static_cast<std::size_t>(2 * tile_floats(p.head_dim) + 2 * tile_floats(p.value_dim));
  if (p.schedule.query_tile_count > 0) {
    xpu::launch<attention_bwd_dq_fp32_kernel<kC>>(
        {blocks(p.schedule.query_tile_count, p.heads), kThreads, floats * sizeof(float), stream}, p);
  }
  if (p.schedule.key_tile_count > 0) {
    xpu::launch<attention_bwd_dkv_fp32_kernel<kC, kCV>>(
        {blocks(p.schedule.key_tile_count, p.kv_heads), kThreads, floats * sizeof(float), stream},
        p);
  }
}

}  // namespace fp32

void launch_bwd(const AttentionBwdParams<float>& p, xpu::Stream stream) {
  const int larger = p.head_dim > p.value_dim ? p.head_dim : p.value_dim;
  if (larger <= 64) {
    fp32::run_bwd<1, 1>(p, stream);
  } else if (larger <= 128) {
    fp32::run_bwd<2, 2>(p, stream);
  } else {
    fp32::run_bwd<4, 4>(p, stream);
  }
}

}  // namespace lh::kernels::softmax
