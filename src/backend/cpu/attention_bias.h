// A bias per key on tiles of scores (backend/attention.h). Score tiles are [keys][queries], so a
// key's bias is one number for a run of columns.
#pragma once

#include <algorithm>

#include "backend/cpu/attention_internal.h"

namespace lh::cpu {

/// The key tile in hand, as one query tile sees it.
struct BiasedTile {
  const AttentionSegment& segment;
  const QueryTile& queries;
  int64_t kv_head, key_begin;
  VisibleRows rows;

  int64_t key(int row) const { return key_begin + rows.begin + row; }
  /// The first column whose query is outside the key's bias window.
  int first_column(const AttentionMask& mask, int row, int columns) const {
    const int64_t first = key(row) + mask.bias_window - queries.position;
    return static_cast<int>(std::clamp<int64_t>(first, 0, columns));
  }
  template <typename Real>
  int64_t index(const AttentionCall<Real>& call, int row) const {
    return (segment.key_begin + key(row)) * call.kv_heads + kv_head;
  }
};

/// True when every pair of the tile is closed by a bias of -inf: it adds nothing to any sum.
template <typename Real>
bool is_closed(const AttentionCall<Real>& call, const BiasedTile& tile) {
  if (call.bias == nullptr) return false;
  // The newest key is the last to leave the window.
  if (tile.first_column(call.plan.mask, tile.rows.count - 1, kTile) > 0) return false;
  for (int r = 0; r < tile.rows.count; ++r)
    if (call.bias[tile.index(call, r)] != -std::numeric_limits<Real>::infinity()) return false;
  return true;
}

/// The bias of each row and the first column it counts for: arguments of TileOps::add_bias.
template <typename Real>
struct RowBias {
  Real bias[kTile];  // scores are not scaled yet, so it is divided by the scale
  int first[kTile];
};
template <typename Real>
void row_bias(const AttentionCall<Real>& call, const BiasedTile& tile, int columns,
              RowBias<Real>& result) {
  const Real inverse = static_cast<Real>(1 / call.plan.scale);
  for (int r = 0; r < tile.rows.count; ++r) {
    result.bias[r] = call.bias == nullptr ? 0 : call.bias[tile.index(call, r)] * inverse;
    result.first[r] = tile.first_column(call.plan.mask, r, columns);
  }
}

}  // namespace lh::cpu
