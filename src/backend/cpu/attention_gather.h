// Keys that a bias closes (hard gates, arXiv 2605.14037). Of a tile with closed keys only the open
// ones are read once it is outside the bias window of a whole query tile: gathered with those of
// other tiles, so that cost follows their number. Nearer queries read the tile itself.
#pragma once

#include <algorithm>
#include <cstring>

#include "backend/cpu/attention_internal.h"

namespace lh::cpu {

/// A mask with a window would have to test every gathered key.
template <typename Real>
bool may_gather(const AttentionCall<Real>& call) {
  return call.biased && call.plan.mask.window == 0;
}

/// bias: that of the key.
template <typename Real>
bool is_open(const Real& bias) {
  return bias != -std::numeric_limits<Real>::infinity();
}

/// True when there are keys to gather.
template <typename Real>
bool closes_keys(const AttentionCall<Real>& call) {
  if (!may_gather(call) || call.device.is_meta()) return false;
  return std::any_of(call.plan.segments.begin(), call.plan.segments.end(),
                     [&](const AttentionSegment& s) {
                       const Real* bias = call.bias + s.key_begin * call.kv_heads;
                       return !std::all_of(bias, bias + s.key_length * call.kv_heads,
                                           is_open<Real>);
                     });
}

/// True when all keys up to `last` are outside the bias window of queries at `position` and later.
inline bool is_remote(const AttentionMask& mask, int64_t last, int64_t position) {
  return last + mask.bias_window <= position;
}

/// Rows of k and v of up to kTile keys from anywhere.
template <typename Real>
struct GatheredRows {
  char *k = nullptr, *v = nullptr;
  Real* bias = nullptr;  // of scores that are not scaled yet
  int count = 0;

  GatheredRows() = default;
  GatheredRows(Carver& carver, const AttentionCall<Real>& call)
      : k(carver.take(int64_t{kTile} * call.k.d * call.k.element_bytes)),
        v(carver.take(int64_t{kTile} * call.v.d * call.v.element_bytes)),
        bias(carver.take<Real>(kTile)) {}

  void add(const AttentionCall<Real>& call, int64_t row, int64_t kv_head) {
    const auto k_bytes = static_cast<size_t>(call.k.d * call.k.element_bytes),
               v_bytes = static_cast<size_t>(call.v.d * call.v.element_bytes);
    const auto at = static_cast<size_t>(count);
    std::memcpy(k + at * k_bytes, call.k.at(row, kv_head), k_bytes);
    std::memcpy(v + at * v_bytes, call.v.at(row, kv_head), v_bytes);
    bias[count++] = call.bias[row * call.kv_heads + kv_head] *
                    static_cast<Real>(1 / call.plan.scale);
  }
};

/// Consecutive key tiles of one key-value head whose open keys the backward pass takes together.
/// Runs do not follow the cut into tasks: none crosses a multiple of kTiles.
struct KeyRun {
  static constexpr int kTiles = 32, kGathered = 4;

  int64_t begin = 0, end = 0;
  bool closes[kTiles] = {};  // some keys of the tile are closed
  int64_t keys[kGathered * kTile];  // the open ones of those tiles, as indices in the segment
  int count = 0;

  int gathered_tiles() const { return static_cast<int>(ceil_div(int64_t{count}, kTile)); }
  int rows_of(int gathered_tile) const { return std::min(kTile, count - gathered_tile * kTile); }
  /// Queries at `position` and later read the tile's open keys from the gathered tiles.
  bool takes(const AttentionSegment& s, const AttentionMask& mask, int64_t tile,
             int64_t position) const {
    return closes[tile - begin] && is_remote(mask, last_key(s, tile), position);
  }
  /// Rows of a gathered tile that queries at `position` and later read: the first ones.
  int remote_rows(const AttentionSegment& s, const AttentionMask& mask, int gathered_tile,
                  int64_t position) const {
    const int64_t* first = keys + gathered_tile * kTile;
    const int64_t* past =
        std::partition_point(first, first + rows_of(gathered_tile), [&](int64_t key) {
          return is_remote(mask, last_key(s, key / kTile), position);
        });
    return static_cast<int>(past - first);
  }

  static int64_t last_key(const AttentionSegment& s, int64_t tile) {
    return std::min((tile + 1) * kTile, s.key_length) - 1;
  }
};

/// The run that begins with tile `begin` of a segment of `tiles` key tiles.
template <typename Real>
void find_run(const AttentionCall<Real>& call, const AttentionSegment& segment, int64_t kv_head,
              int64_t begin, KeyRun& run) {
  run.begin = run.end = begin;
  run.count = 0;
  const int64_t tiles = ceil_div(segment.key_length, kTile);
  const int64_t limit = std::min(tiles, (begin / KeyRun::kTiles + 1) * KeyRun::kTiles);
  for (; run.end < limit; ++run.end) {
    const int64_t first = run.end * kTile, last = KeyRun::last_key(segment, run.end);
    const Real* bias = call.bias + segment.key_begin * call.kv_heads + kv_head;
    int open = 0;
    for (int64_t key = first; key <= last; ++key) open += is_open(bias[key * call.kv_heads]);
    const bool closes = open <= last - first;
    if (closes && run.count + open > KeyRun::kGathered * kTile) return;
    run.closes[run.end - begin] = closes;
    for (int64_t key = first; key <= last && closes; ++key)
      if (is_open(bias[key * call.kv_heads])) run.keys[run.count++] = key;
  }
}

}  // namespace lh::cpu
