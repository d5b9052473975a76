// What the kernels of attention_decode share: which keys and rows a block works on, where they lie, and
// how parts of the softmax become one.
//
// Rows: the tokens x group query rows that read one kv head are packed: row r is token r / group,
//   head kv_head group + r % group. A block takes kRows of them, so each key is read once for all.
// Keys: the tiles the mask lets some of these rows see (mask.h), in equal runs, one per split. The
//   warps of a block take the tiles of its run in turn, each with its own ring of stages and its own
//   online softmax: no barrier of the block until the end.
// One launch: a split leaves its normalised output and lse in the workspace, counts itself, and the
//   one that counts last merges all of them in the order of the keys, whoever it is: bitwise the
//   same result in any order of blocks. It sets the counter back to 0 for the next launch.
#pragma once
#include "kernels/attention/decode.h"
#include "kernels/attention/mask.h"
#include "kernels/attention/merge.cuh"
#include "kernels/xpu/xpu.h"

namespace lh::kernels::decode {

constexpr int kWarps = 4, kThreads = 32 * kWarps, kRows = kAttentionDecodeRows;
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;
constexpr float kInf = __builtin_huge_valf();

struct Work {
  AttentionSegment segment;
  int sequence = 0, kv_head = 0, group = 0;
  int first_row = 0, rows = 0;       // of the packed rows
  int first = 0, last = 0;           // positions of the first and last of them
  KeyTileRange range;                // key tiles they see
  int tile_begin = 0, tile_end = 0;  // those of this split, as indices of the range
  int split = 0, splits = 1;         // among the splits that have keys
  int slot = 0;                      // number of (sequence, kv head, row tile)

  __device__ int token(int r) const { return (first_row + r) / group; }
  __device__ int head(int r) const { return kv_head * group + (first_row + r) % group; }
  __device__ std::int64_t query_row(int r) const {
    return std::int64_t{segment.query_begin} + token(r);
  }
  /// Position of row r; of the last row for the padding after it.
  __device__ int position(int r) const {
    return segment.query_offset + token(imin(r, rows - 1));
  }
};

/// False when nothing is left for this block.
template <int kTile, class T>
__device__ inline bool find_work(const AttentionDecodeParams<T>& p, Work& w) {
  w.group = p.heads / p.kv_heads;
  const int row_tiles = attention_decode_row_tiles(p.tokens, p.heads, p.kv_heads);
  int item = static_cast<int>(blockIdx.x);  // neighbours read the same rows of the cache
  const int row_tile = item % row_tiles;
  item /= row_tiles;
  w.kv_head = item % p.kv_heads;
  item /= p.kv_heads;
  w.split = item % p.splits;
  w.sequence = item / p.splits;
  w.slot = (w.sequence * p.kv_heads + w.kv_head) * row_tiles + row_tile;

  w.segment = p.segments[w.sequence];
  w.first_row = row_tile * kRows;
  w.rows = imin(kRows, w.segment.query_length * w.group - w.first_row);
  if (w.rows <= 0) return false;
  w.first = w.position(0);
  w.last = w.position(w.rows - 1);
  w.range = key_tile_range(p.mask, w.segment.key_length, w.first, w.last, kTile);

  const int tiles = w.range.count(), aim = imax(1, p.split_keys / kTile);
  w.splits = imax(1, imin(p.splits, (tiles + aim - 1) / aim));
  if (w.split >= w.splits) return false;
  const int each = tiles / w.splits, more = tiles % w.splits;  // the first `more` have one more
  w.tile_begin = w.split * each + imin(w.split, more);
  w.tile_end = w.tile_begin + each + (w.split < more ? 1 : 0);
  return true;
}

/// Row of the cache that holds the key at a position. The rows of a tile follow it: tiles divide pages.
template <class T>
__device__ inline std::int64_t key_row(const AttentionDecodeParams<T>& p, const Work& w, int key) {
  if (!p.pages) return std::int64_t{w.segment.key_begin} + key;
  const int page = p.pages[std::int64_t{w.sequence} * p.pages_per_sequence + key / p.page_size];
  return std::int64_t{page} * p.page_size + key % p.page_size;
}

template <class T>
__device__ inline void store_result(const AttentionDecodeParams<T>& p, const Work& w, int r,
                                    int column, const xpu::Vec<float, 4>& x, float lse) {
  const std::int64_t row = w.query_row(r);
  const int head = w.head(r);
  const std::int64_t at = row * p.out_stride + head * p.value_dim + column;
  if (p.partial) {
    xpu::store_vec(p.partial + at, x);
  } else {
    xpu::Vec<T, 4> out;
#pragma unroll
    for (int c = 0; c < 4; ++c) out[c] = xpu::from_float<T>(x[c]);
    xpu::store_vec(p.out + at, out);
  }
  if (column == 0) p.lse[row * p.heads + head] = lse;
}

/// Ends a block whose warps have left their outputs, not yet normalised, in outs + warp warp_step
/// ([kRows][pitch]) with the maxima (units of log 2) and sums of their rows. The whole block calls it.
template <class T>
__device__ inline void finish(const AttentionDecodeParams<T>& p, const Work& w, const float* outs,
                              int warp_step, int pitch, const float (&maxima)[kWarps][kRows],
                              const float (&sums)[kWarps][kRows]) {
  XPU_SHARED(int, arrived, [1]);
  const int d = p.value_dim, quads = d / 4, part_floats = kRows * (d + 1);
  float* const parts =
      w.splits == 1 ? nullptr : p.workspace + std::int64_t{w.slot} * p.splits * part_floats;
  float* const part = parts + std::int64_t{w.split} * part_floats;
  xpu::sync_block();
  for (int i = threadIdx.x; i < w.rows * quads; i += kThreads) {
    const int r = i / quads, column = i % quads * 4;
    float top = -kInf;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) top = fmaxf(top, maxima[warp][r]);
    const float base = top == -kInf ? 0.0f : top;
    xpu::Vec<float, 4> x{};
    float total = 0.0f;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) {
      const float factor = exp2f(maxima[warp][r] - base);
      const auto own = xpu::load_vec<4>(outs + warp * warp_step + r * pitch + column);
      total += sums[warp][r] * factor;
#pragma unroll
      for (int c = 0; c < 4; ++c) x[c] += own[c] * factor;
    }
    const float inverse = total == 0.0f ? 0.0f : 1.0f / total;
    const float lse = total == 0.0f ? -kInf : top * kLn2 + logf(total);
#pragma unroll
    for (int c = 0; c < 4; ++c) x[c] *= inverse;
    if (w.splits == 1) {
      store_result(p, w, r, column, x, lse);
    } else {
      xpu::store_vec(part + r * d + column, x);
      if (column == 0) part[kRows * d + r] = lse;
    }
  }
  if (w.splits == 1) return;

  xpu::fence_device();  // the part is seen by whoever sees the count
  xpu::sync_block();
  if (threadIdx.x == 0) arrived[0] = xpu::atomic_add(p.counters + w.slot, 1);
  xpu::sync_block();
  if (arrived[0] != w.splits - 1) return;
  xpu::fence_device();
  for (int i = threadIdx.x; i < w.rows * quads; i += kThreads) {
    const int r = i / quads, column = i % quads * 4;
    float lse;
    const auto x = merge_columns(parts + r * d + column, part_floats, parts + kRows * d + r,
                                 part_floats, w.splits, &lse);
    store_result(p, w, r, column, x, lse);
  }
  if (threadIdx.x == 0) p.counters[w.slot] = 0;
}

}  // namespace lh::kernels::decode
