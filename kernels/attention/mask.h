// Integer geometry of causal, windowed and sink masks: which tiles a tile sees, and whether a pair
// of tiles needs masking at all. Used by every attention kernel and by the schedule builder.
#pragma once
#include "kernels/attention/params.h"

namespace lh::kernels {

XPU_HD int imin(int a, int b) {
  return a < b ? a : b;
}
XPU_HD int imax(int a, int b) {
  return a > b ? a : b;
}

/// The definition; `query` and `key` are positions. Keys at or past key_length are padding.
XPU_HD bool visible(const AttentionMask& mask, int query, int key, int key_length) {
  if (key >= key_length) return false;
  if (!mask.causal) return true;
  return key <= query && (mask.window == 0 || query - key < mask.window || key < mask.sinks);
}

/// Key tiles that queries at positions [first, last] see: [0, sink_end) and [begin, end).
struct KeyTileRange {
  int sink_end = 0, begin = 0, end = 0;
  XPU_HD int count() const { return sink_end + end - begin; }
  XPU_HD int at(int i) const { return i < sink_end ? i : begin + i - sink_end; }
};

XPU_HD KeyTileRange key_tile_range(const AttentionMask& mask, int key_length, int first, int last,
                                   int tile) {
  KeyTileRange range;
  const int key_end = mask.causal ? imax(0, imin(last + 1, key_length)) : key_length;
  range.end = (key_end + tile - 1) / tile;
  if (mask.causal && mask.window > 0) {
    range.begin = imin(imax(0, first - mask.window + 1) / tile, range.end);
    range.sink_end = imin((mask.sinks + tile - 1) / tile, range.begin);
  }
  return range;
}

/// Some pair of queries [first, last] and keys [key_begin, key_begin + tile) is invisible.
XPU_HD bool needs_mask(const AttentionMask& mask, int key_length, int first, int last,
                       int key_begin, int tile) {
  const int key_end = key_begin + tile;
  if (key_end > key_length) return true;
  if (!mask.causal) return false;
  if (key_end - 1 > first) return true;
  if (mask.window == 0) return false;
  const int oldest = imax(key_begin, mask.sinks);  // first key the window applies to
  return oldest < key_end && last - oldest >= mask.window;
}

/// To which visible pairs of a tile of queries and a tile of keys a bias per key is added.
enum class BiasPairs { kNone, kSome, kAll };

/// Of queries [first, last] and keys [key_begin, key_end), positions.
XPU_HD BiasPairs bias_pairs(const AttentionMask& mask, int first, int last, int key_begin,
                            int key_end) {
  if (last - key_begin < mask.bias_window) return BiasPairs::kNone;
  const int nearest = first - (key_end - 1);  // causal: nothing nearer than 0 is visible
  return (mask.causal ? imax(nearest, 0) : nearest) >= mask.bias_window ? BiasPairs::kAll
                                                                       : BiasPairs::kSome;
}

/// Queries [begin, end), as indices in the segment, that may see any of the keys at positions
/// [key_begin, key_end); closed: all of these have a bias of -inf.
struct QueryRange {
  int begin = 0, end = 0;
};

XPU_HD QueryRange query_range(const AttentionMask& mask, const AttentionSegment& segment,
                              int key_begin, int key_end, bool closed = false) {
  QueryRange range{0, segment.query_length};
  if (closed) {
    range.end = imin(range.end, key_end - 1 + mask.bias_window - segment.query_offset);
  }
  if (mask.causal) {
    range.begin = imin(imax(0, key_begin - segment.query_offset), segment.query_length);
    if (mask.window > 0 && key_begin >= mask.sinks) {
      range.end = imin(range.end, key_end - 1 + mask.window - segment.query_offset);
    }
  }
  range.end = imax(range.begin, range.end);
  return range;
}

}  // namespace lh::kernels
