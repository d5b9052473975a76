#include "backend/cpu/attention_geometry.h"

#include <algorithm>

#include "base/math.h"

namespace lh::cpu {

QueryTile query_tile(const AttentionSegment& segment, int64_t index) {
  const int64_t first = index * kTile;
  const auto count = static_cast<int>(std::min<int64_t>(kTile, segment.query_length - first));
  return {first, count, segment.query_offset + first};
}

VisibleRows visible_rows(const AttentionMask& mask, const QueryTile& queries, int64_t key_begin,
                         int key_count) {
  const bool windowed = mask.window > 0;
  int64_t begin = key_begin, end = std::min(key_begin + key_count, queries.last_position() + 1);
  if (windowed) {
    const int64_t window_begin = queries.position - mask.window + 1;
    if (key_begin >= mask.sinks) {
      begin = std::max(begin, window_begin);
    } else if (window_begin >= end) {
      end = std::min(end, mask.sinks);
    }
  }
  if (begin >= end) return {};
  begin -= (begin - key_begin) % kRowMultiple;
  VisibleRows rows;
  rows.begin = static_cast<int>(begin - key_begin);
  rows.count = static_cast<int>(end - begin);
  const int64_t oldest = std::max(begin, mask.sinks);  // first key the window applies to
  rows.masked = end - 1 > queries.position ||
                (windowed && oldest < end && queries.last_position() - oldest >= mask.window);
  return rows;
}

void column_ranges(const AttentionMask& mask, const QueryTile& queries, int64_t key_begin,
                   const VisibleRows& rows, int columns, ColumnRanges& ranges) {
  for (int r = 0; r < rows.count; ++r) {
    const int64_t key = key_begin + rows.begin + r;
    const int64_t first = key - queries.position;  // column of the query at the key's position
    const bool limited = mask.window > 0 && key >= mask.sinks;
    const int64_t end = limited ? first + mask.window : columns;
    ranges.begin[r] = static_cast<int>(std::clamp<int64_t>(first, 0, columns));
    ranges.end[r] = static_cast<int>(std::clamp<int64_t>(end, 0, columns));
  }
}

KeyTileRange key_tiles(const AttentionSegment& segment, const AttentionMask& mask, int64_t first,
                       int64_t last) {
  KeyTileRange range;
  range.end = ceil_div(std::clamp<int64_t>(last + 1, 0, segment.key_length), kTile);
  if (mask.window > 0) {
    range.begin = std::max<int64_t>(0, first - mask.window + 1) / kTile;
    range.begin = std::min(range.begin, range.end);
    range.sink_end = std::min(ceil_div(mask.sinks, kTile), range.begin);
  }
  return range;
}

QueryTileRange query_tiles(const AttentionSegment& segment, const AttentionMask& mask,
                           int64_t key_begin, int64_t key_end) {
  const int64_t begin = std::max<int64_t>(0, key_begin - segment.query_offset);
  int64_t end = segment.query_length;
  if (mask.window > 0 && key_begin >= mask.sinks)
    end = std::min(end, key_end - 1 + mask.window - segment.query_offset);
  if (begin >= end) return {};
  return {begin / kTile, ceil_div(end, kTile)};
}

namespace {

void longest_first(std::vector<AttentionTask>& tasks) {
  std::stable_sort(tasks.begin(), tasks.end(),
                   [](const AttentionTask& a, const AttentionTask& b) { return a.cost > b.cost; });
}

}  // namespace

std::vector<AttentionTask> query_tasks(const AttentionPlan& plan, const std::vector<int>& segments,
                                       int64_t kv_heads, int64_t group, int64_t per_task) {
  std::vector<AttentionTask> tasks;
  for (const int s : segments) {
    const AttentionSegment& segment = plan.segments[static_cast<size_t>(s)];
    const int64_t items = ceil_div(segment.query_length, kTile) * group;
    for (int64_t begin = 0; begin < items; begin += per_task) {
      const int64_t end = std::min(items, begin + per_task);
      int64_t cost = 0;
      for (int64_t i = begin; i < end; ++i) {
        const QueryTile tile = query_tile(segment, i / group);
        cost += key_tiles(segment, plan.mask, tile.position, tile.last_position()).count() + 1;
      }
      for (int h = 0; h < kv_heads; ++h) tasks.push_back({s, h, begin, end, cost});
    }
  }
  longest_first(tasks);
  return tasks;
}

std::vector<AttentionTask> key_tasks(const AttentionPlan& plan, int64_t kv_heads, int64_t group,
                                     int64_t per_task) {
  std::vector<AttentionTask> tasks;
  for (int s = 0; s < static_cast<int>(plan.segments.size()); ++s) {
    const AttentionSegment& segment = plan.segments[static_cast<size_t>(s)];
    const int64_t tiles = ceil_div(segment.key_length, kTile);
    const int64_t step = per_task == 0 ? std::max<int64_t>(tiles, 1) : per_task;
    for (int64_t begin = 0; begin < tiles; begin += step) {
      const int64_t end = std::min(tiles, begin + step);
      int64_t cost = 1;
      for (int64_t t = begin; t < end; ++t) {
        const QueryTileRange range = query_tiles(segment, plan.mask, t * kTile,
                                                 std::min(segment.key_length, (t + 1) * kTile));
        cost += (range.end - range.begin) * group;
      }
      for (int h = 0; h < kv_heads; ++h) tasks.push_back({s, h, begin, end, cost});
    }
  }
  longest_first(tasks);
  return tasks;
}

}  // namespace lh::cpu
