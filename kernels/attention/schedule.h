// Builds on the host the work items of the attention kernels: (segment, query tile) for passes over
// queries, key tiles with the segments that hold them for the pass over keys. Longest first, so
// that blocks taken in order end about together. Plain C++; the caller copies the lists to the
// device.
#pragma once
#include <algorithm>
#include <span>
#include <vector>

#include "kernels/attention/mask.h"

namespace lh::kernels {

namespace schedule_internal {

template <class Tile>
struct Costed {
  Tile tile;
  std::int64_t cost;
};

/// Stable, so that the order of equal tiles, and with it every sum, does not depend on the library.
template <class Tile>
std::vector<Tile> longest_first(std::vector<Costed<Tile>>& tiles) {
  std::stable_sort(tiles.begin(), tiles.end(),
                   [](const auto& a, const auto& b) { return a.cost > b.cost; });
  std::vector<Tile> out;
  out.reserve(tiles.size());
  for (const auto& costed : tiles) out.push_back(costed.tile);
  return out;
}

}  // namespace schedule_internal

/// Every query row of every segment lies in exactly one tile, whether it sees a key or not.
inline std::vector<AttentionQueryTile> query_tiles(std::span<const AttentionSegment> segments,
                                                   const AttentionMask& mask, int tile) {
  std::vector<schedule_internal::Costed<AttentionQueryTile>> tiles;
  for (int s = 0; s < static_cast<int>(segments.size()); ++s) {
    const AttentionSegment& segment = segments[static_cast<std::size_t>(s)];
    for (int first = 0; first < segment.query_length; first += tile) {
      const int last = std::min(first + tile, segment.query_length) - 1;
      const KeyTileRange keys = key_tile_range(
          mask, segment.key_length, first + segment.query_offset, last + segment.query_offset, 64);
      tiles.push_back({{s, first}, keys.count()});
    }
  }
  return schedule_internal::longest_first(tiles);
}

struct AttentionKeyTiles {
  std::vector<AttentionKeyTile> tiles;
  std::vector<int> segments;  // what the tiles' segments_begin points into
};

/// Every key row of every segment lies in exactly one tile. Keys are cut where a segment begins or
/// ends, so that all keys of a tile belong to the same segments, listed in ascending order.
inline AttentionKeyTiles key_tiles(std::span<const AttentionSegment> segments,
                                   const AttentionMask& mask, int tile) {
  std::vector<int> cuts, by_begin;
  for (int s = 0; s < static_cast<int>(segments.size()); ++s) {
    const AttentionSegment& segment = segments[static_cast<std::size_t>(s)];
    if (segment.key_length == 0) continue;
    cuts.push_back(segment.key_begin);
    cuts.push_back(segment.key_begin + segment.key_length);
    by_begin.push_back(s);
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  std::stable_sort(by_begin.begin(), by_begin.end(), [&](int a, int b) {
    return segments[static_cast<std::size_t>(a)].key_begin <
           segments[static_cast<std::size_t>(b)].key_begin;
  });

  AttentionKeyTiles out;
  std::vector<schedule_internal::Costed<AttentionKeyTile>> tiles;
  std::vector<int> active;
  std::size_t next = 0;
  for (std::size_t c = 0; c + 1 < cuts.size(); ++c) {
    const int begin = cuts[c], end = cuts[c + 1];
    std::erase_if(active, [&](int s) {
      const AttentionSegment& segment = segments[static_cast<std::size_t>(s)];
      return segment.key_begin + segment.key_length <= begin;
    });
    for (; next < by_begin.size() &&
           segments[static_cast<std::size_t>(by_begin[next])].key_begin == begin;
         ++next) {
      active.insert(std::lower_bound(active.begin(), active.end(), by_begin[next]), by_begin[next]);
    }
    if (active.empty()) continue;
    const int list = static_cast<int>(out.segments.size());
    out.segments.insert(out.segments.end(), active.begin(), active.end());
    for (int first = begin; first < end; first += tile) {
      const int count = std::min(tile, end - first);
      std::int64_t cost = 0;
      for (const int s : active) {
        const AttentionSegment& segment = segments[static_cast<std::size_t>(s)];
        const int position = first - segment.key_begin;
        const QueryRange queries = query_range(mask, segment, position, position + count);
        cost += queries.end - queries.begin;
      }
      tiles.push_back({{first, count, list, static_cast<int>(active.size())}, cost});
    }
  }
  out.tiles = schedule_internal::longest_first(tiles);
  return out;
}

}  // namespace lh::kernels
