// What the decoding kernels share: which keys and rows a block works on, where they lie, and which block
// makes one of the parts. Params: AttentionDecodeParams<T> or derived from it.
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
#include "kernels/xpu/xpu.h"

namespace lh::kernels::decode {

constexpr int kWarps = 4, kThreads = 32 * kWarps;
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

/// The segment of a sequence.
template <class Params>
__device__ inline AttentionSegment segment_of(const Params& p, int sequence) {
  if (!p.lengths) return p.segments[sequence];
  const int keys = p.lengths[sequence];
  return {sequence, 1, 0, keys, keys - 1};
}

/// False when nothing is left for this block.
template <int kTile, class Params>
__device__ inline bool find_work(const Params& p, Work& w) {
  constexpr int kRows = Params::kRows;
  w.group = p.heads / p.kv_heads;
  const int row_tiles = attention_decode_row_tiles(p);
  int item = static_cast<int>(blockIdx.x);  // neighbours read the same rows of the cache
  const int row_tile = item % row_tiles;
  item /= row_tiles;
  w.kv_head = item % p.kv_heads;
  item /= p.kv_heads;
  w.split = item % p.splits;
  w.sequence = item / p.splits;
  w.slot = (w.sequence * p.kv_heads + w.kv_head) * row_tiles + row_tile;

  w.segment = segment_of(p, w.sequence);
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

/// Tiles of its block's run that a warp takes, and the key at which the i-th of them begins.
__device__ inline int warp_tiles(const Work& w, int warp) {
  return imax(0, (w.tile_end - w.tile_begin - warp + kWarps - 1) / kWarps);
}
template <int kTile>
__device__ inline int warp_key(const Work& w, int warp, int i) {
  return w.range.at(w.tile_begin + warp + i * kWarps) * kTile;
}

/// Hands over the part that the block has written to the workspace. True in the last block of a slot
/// to do so, which then finds all parts there. The whole block calls it.
template <class Params>
__device__ inline bool last_to_arrive(const Params& p, const Work& w) {
  XPU_SHARED(int, arrived, [1]);
  xpu::fence_device();  // the part is seen by whoever sees the count
  xpu::sync_block();
  if (threadIdx.x == 0) arrived[0] = xpu::atomic_add(p.counters + w.slot, 1);
  xpu::sync_block();
  if (arrived[0] != w.splits - 1) return false;
  xpu::fence_device();
  return true;
}

}  // namespace lh::kernels::decode
