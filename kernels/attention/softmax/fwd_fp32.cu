// Softmax attention forward in fp32 on plain multiply-adds: tensor cores would round the inputs to
// tf32, which is not what fp32 promises.
//   s_ij = scale q_i k_j + bias_j,  p_ij = exp(s_ij - lse_i),  out_i = sum_j p_ij v_j
// Tiling: a block of 256 threads per (32 queries, head); keys pass in tiles of 32 (fp32_tile.h).
// Shared memory: q, k, v tiles and a 32 x 33 tile of weights: 52 KiB at d = 128.
// Numerics: fp32 throughout, online softmax in units of log 2 with the accurate exponential.
// Masks: as fwd_bf16.cu.
// Determinism: bitwise; key tiles in the order of the walk (key_walk.h).
// Roofline, an unmeasured estimate: 67 TFLOP/s of fp32 on H200; 4 d flops per visible pair; shared
//   memory bounds it to about half of that.
#include "kernels/attention/softmax/dispatch.h"
#include "kernels/attention/softmax/fp32_tile.h"
#include "kernels/attention/softmax/key_walk.h"

namespace lh::kernels::softmax {

namespace fp32 {

template <int kC>
__global__ void __launch_bounds__(kThreads, 1)
    attention_fwd_fp32_kernel(const AttentionFwdParams<float> p) {
  XPU_DYN_SHARED(float, q_tile);
  XPU_SHARED(float, weights, [kTile * (kTile + 1)]);
  float* const k_tile = q_tile + tile_floats(p.head_dim);
  float* const v_tile = k_tile + tile_floats(p.head_dim);

  const int head = blockIdx.x % p.heads, kv_head = head / (p.heads / p.kv_heads);
  const AttentionQueryTile work = p.schedule.query_tiles[blockIdx.x / p.heads];
  const AttentionSegment segment = p.schedule.segments[work.segment];
  const int rows = imin(kTile, segment.query_length - work.first);
  if (rows <= 0) return;  // an empty work item
  const int first = segment.query_offset + work.first, last = first + rows - 1;  // positions
  const std::int64_t row_begin = std::int64_t{segment.query_begin} + work.first;
  const auto walk = key_walk<kTile, true>(p, segment, kv_head, first, last);
  const int tiles = walk.count();

  load_tile(q_tile, p.q + row_begin * p.q_stride + head * p.head_dim, p.q_stride, rows, p.head_dim);
  float out[2][kC][4] = {}, maximum[2] = {-kInf, -kInf}, sum[2] = {};
  for (int tile = 0; tile < tiles; ++tile) {
    const KeyTile at = walk.at(tile);
    const KeyRows<float> from = rows_of(p, kv_head, at);
    const int keys = imin(kTile, at.length - at.key);
    xpu::sync_block();  // all are done with the tile before
    load_tile(k_tile, from.k, from.k_stride, keys, p.head_dim);
    load_tile(v_tile, from.v, from.v_stride, keys, p.value_dim);
    xpu::sync_block();
    float s[2][2];
    dot(s, q_tile, k_tile, p.head_dim);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int column = own_x() + 16 * j;
      const float bias = p.bias && column < keys ? from.bias[std::int64_t{column} * p.kv_heads] : 0.0f;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        s[i][j] = score(p.mask, s[i][j], p.scale, bias, first + own_y() + 16 * i,
                        at.key + column, at.length);
      }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float top = fmaxf(maximum[i], row_max(fmaxf(s[i][0], s[i][1])));
      const float base = top == -kInf ? 0.0f : top;  // a row that saw nothing so far
      const float correction = exp2f(maximum[i] - base);
      maximum[i] = top;
      sum[i] *= correction;
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        s[i][j] = exp2f(s[i][j] - base);
        sum[i] += s[i][j];
      }
#pragma unroll
      for (int c = 0; c < kC; ++c) {
#pragma unroll
        for (int e = 0; e < 4; ++e) out[i][c][e] *= correction;
      }
    }
    put_weights(weights, s);
    multiply<kC>(out, weights, v_tile, p.value_dim);
  }

  float inverse[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float total = row_sum(sum[i]);
    inverse[i] = total == 0.0f ? 0.0f : 1.0f / total;
    const int row = own_y() + 16 * i;
    if (own_x() == 0 && row < rows) {
      p.lse[(row_begin + row) * p.heads + head] =
          total == 0.0f ? -kInf : maximum[i] * kLn2 + logf(total);
    }
  }
  float* target = p.partial ? p.partial : p.out;
  store_rows<kC>(target + row_begin * p.out_stride + head * p.value_dim, p.out_stride, out, inverse,
                 rows, p.value_dim);
}

template <int kC>
void run(const AttentionFwdParams<float>& p, xpu::Stream stream) {
  const auto floats = static_cast<std::size_t>(2 * tile_floats(p.head_dim) +
                                               tile_floats(p.value_dim));
  xpu::launch<attention_fwd_fp32_kernel<kC>>(
      {blocks(p.schedule.query_tile_count, p.heads), kThreads, floats * sizeof(float), stream}, p);
}

}  // namespace fp32

void launch_fwd(const AttentionFwdParams<float>& p, xpu::Stream stream) {
  if (p.value_dim <= 64) {
    fp32::run<1>(p, stream);
  } else if (p.value_dim <= 128) {
    fp32::run<2>(p, stream);
  } else {
    fp32::run<4>(p, stream);
  }
}

}  // namespace lh::kernels::softmax
