// Which keys a tile of queries sees: integer geometry of causal, windowed and sink masks, shared by
// the forward and backward loop nests. All positions count from the first key of a segment.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/attention.h"
#include "backend/cpu/attention_tiles.h"

namespace lh::cpu {

/// Up to kTile queries of one segment.
struct QueryTile {
  int64_t first = 0;  // index in the segment
  int count = 0;
  int64_t position = 0;  // of the first
  int64_t last_position() const { return position + count - 1; }
};
QueryTile query_tile(const AttentionSegment& segment, int64_t index);

/// Rows of a key tile that a query tile sees at least one of. `masked`: some of the pairs inside
/// are invisible, so the scores need masking.
struct VisibleRows {
  int begin = 0, count = 0;
  bool masked = false;
};
VisibleRows visible_rows(const AttentionMask& mask, const QueryTile& queries, int64_t key_begin,
                         int key_count);

/// For each row the columns that see it: the arguments of TileOps::mask.
struct ColumnRanges {
  int begin[kTile], end[kTile];
};
void column_ranges(const AttentionMask& mask, const QueryTile& queries, int64_t key_begin,
                   const VisibleRows& rows, int columns, ColumnRanges& ranges);

/// Key tiles that queries at positions [first, last] see: [0, sink_end) and [begin, end).
struct KeyTileRange {
  int64_t sink_end = 0, begin = 0, end = 0;
  int64_t start() const { return sink_end > 0 ? 0 : begin; }
  int64_t next(int64_t tile) const { return tile + 1 == sink_end ? begin : tile + 1; }
  int64_t count() const { return sink_end + (end - begin); }
};
KeyTileRange key_tiles(const AttentionSegment& segment, const AttentionMask& mask, int64_t first,
                       int64_t last);

/// Query tiles [begin, end) that see any of the keys [key_begin, key_end).
struct QueryTileRange {
  int64_t begin = 0, end = 0;
};
QueryTileRange query_tiles(const AttentionSegment& segment, const AttentionMask& mask,
                           int64_t key_begin, int64_t key_end);

/// A unit of work for one thread: some consecutive tiles of one key-value head of one segment.
struct AttentionTask {
  int segment = 0, kv_head = 0;
  int64_t begin = 0, end = 0;
  int64_t cost = 0;  // tile pairs
};

/// Query side: items are (query tile, head of the group), heads fastest, `per_task` to a task.
/// Longest tasks first, so that a dynamic schedule ends evenly.
std::vector<AttentionTask> query_tasks(const AttentionPlan& plan, const std::vector<int>& segments,
                                       int64_t kv_heads, int64_t group, int64_t per_task);
/// Key side: items are key tiles. per_task 0: all of a segment in one task.
std::vector<AttentionTask> key_tasks(const AttentionPlan& plan, int64_t kv_heads, int64_t group,
                                     int64_t per_task);

}  // namespace lh::cpu
