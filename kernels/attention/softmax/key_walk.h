// The key tiles that a tile of queries meets in the forward pass and in the backward pass over
// queries.
#pragma once
#include "kernels/attention/closed_runs.h"
#include "kernels/attention/mask.h"

namespace lh::kernels::softmax {

/// The runs of a kv head from row `row` on; null when there are none.
template <class Params>
XPU_HD const std::uint8_t* closed_runs(const Params& p, int kv_head, int row) {
  return p.closed_runs ? p.closed_runs + std::int64_t{kv_head} * p.key_rows + row : nullptr;
}

/// All keys of the tile are closed.
template <class Params>
XPU_HD bool closed(const Params& p, int kv_head, const AttentionKeyTile& tile) {
  return p.closed_runs && *closed_runs(p, kv_head, tile.first) >= tile.count;
}

/// Walks the tiles that the mask shows, in ascending order, but for those whose keys are all closed
/// and outside the bias window of every query: their weights are 0, so that leaving them out changes
/// no bit of a result.
struct KeyWalk {
  KeyTileRange range;
  const std::uint8_t* runs;  // from the segment's first key on; null: no tile is left out
  int tile, key_length;
  int remote_end;  // every query adds the bias of the keys before this position that it sees

  XPU_HD bool left_out(int i) const {
    const int key = range.at(i) * tile, end = imin(key + tile, key_length);
    return end <= remote_end && runs[key] >= end - key;
  }
  /// The first tile from `i` on; range.count() behind the last.
  XPU_HD int next(int i) const {
    while (runs && i < range.count() && left_out(i)) ++i;
    return i;
  }
};

/// Of queries [first, last], positions in the segment.
template <class Params>
XPU_HD KeyWalk key_walk(const Params& p, const AttentionSegment& segment, int kv_head, int first,
                        int last, int tile) {
  const bool everywhere = p.mask.causal && p.mask.bias_window == 0;
  return {key_tile_range(p.mask, segment.key_length, first, last, tile),
          closed_runs(p, kv_head, segment.key_begin), tile, segment.key_length,
          everywhere ? segment.key_length : first - p.mask.bias_window + 1};
}

}  // namespace lh::kernels::softmax
