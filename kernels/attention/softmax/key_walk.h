// The key tiles that a tile of queries meets in the forward pass and in the backward pass over
// queries: how many, and where each lies.
#pragma once
#include "kernels/attention/mask.h"

namespace lh::kernels::softmax {

/// Of a pass. Rows from position `length` on are not this tile's: a box brings them along.
struct KeyTile {
  int row;          // of the first key, in k, v and bias or, when open, in their copies of open keys
  int key, length;  // positions of the first key and behind the last one that may be seen
  bool open;
};

/// First the remote keys, those outside the bias window of every query, then the near ones, each in
/// ascending order. With copies of the open keys (AttentionOpenKeys) remote tiles hold nothing else, so
/// that their number follows that of open keys; without, every key counts as near. To masks and bias all
/// remote keys are alike, so a tile of them is given the positions just before the first near key. A
/// kernel that is short of registers keeps its walk in shared memory.
template <int kTile, bool kOpen>
struct KeyWalk {
  int key_begin, key_length;      // of the segment
  int near_key;                   // position where the near tiles begin
  int sink_end, begin, end;       // near tiles from there on, as KeyTileRange
  int open_row, open_count;       // the segment's remote keys in the copies
  int open_key;                   // position given to the first key of a remote tile

  XPU_HD int open_tiles() const { return kOpen ? (open_count + kTile - 1) / kTile : 0; }
  XPU_HD int count() const { return open_tiles() + KeyTileRange{sink_end, begin, end}.count(); }

  XPU_HD KeyTile at(int i) const {
    if constexpr (kOpen) {
      const int done = i * kTile;
      if (done < open_count) return {open_row + done, open_key, open_key + open_count - done, true};
      i -= open_tiles();
    }
    const int key = near_key + KeyTileRange{sink_end, begin, end}.at(i) * kTile;
    return {key_begin + key, key, key_length, false};
  }
};

/// Of queries [first, last], positions in the segment. kOpen: there may be copies of the open keys.
template <int kTile, bool kOpen, class Params>
XPU_HD KeyWalk<kTile, kOpen> key_walk(const Params& p, const AttentionSegment& segment, int kv_head,
                                      int first, int last) {
  KeyWalk<kTile, kOpen> walk{segment.key_begin, segment.key_length, 0, 0, 0, 0, 0, 0, 0};
  if (kOpen && p.open.before) {
    // Every query sees the keys before remote_end, with their bias.
    const int remote_end = first - p.mask.bias_window + 1;
    const int* before = p.open.before + std::int64_t{kv_head} * (p.key_rows + 1) + segment.key_begin;
    walk.near_key = imin(imax(remote_end, 0), segment.key_length);
    walk.open_row = before[0];
    walk.open_count = before[walk.near_key] - before[0];
    walk.open_key = remote_end - kTile;
  }
  const int near_key = walk.near_key;
  const KeyTileRange near = key_tile_range(p.mask, segment.key_length - near_key, first - near_key,
                                           last - near_key, kTile);
  walk.sink_end = near.sink_end;
  walk.begin = near.begin;
  walk.end = near.end;
  return walk;
}

/// The rows of a kv head from a tile's first one on.
template <class T>
struct KeyRows {
  const T *k, *v;
  const float* bias;  // kv_heads apart; null: none
  std::int64_t k_stride, v_stride;
};

template <template <class> class Params, class T>
XPU_HD KeyRows<T> rows_of(const Params<T>& p, int kv_head, const KeyTile& tile) {
  const T *k = p.k, *v = p.v;
  const float* bias = p.bias;
  std::int64_t k_stride = p.k_stride, v_stride = p.v_stride;
  if (tile.open) {
    k = p.open.k, v = p.open.v, bias = p.open.bias;
    k_stride = std::int64_t{p.kv_heads} * p.head_dim;
    v_stride = std::int64_t{p.kv_heads} * p.value_dim;
  }
  const std::int64_t row = tile.row;
  return {k + row * k_stride + kv_head * p.head_dim, v + row * v_stride + kv_head * p.value_dim,
          bias ? bias + row * p.kv_heads + kv_head : nullptr, k_stride, v_stride};
}

}  // namespace lh::kernels::softmax
