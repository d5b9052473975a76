// The queries that a tile of keys meets in the backward passes over keys.
#pragma once
#include "kernels/attention/closed_runs.h"
#include "kernels/attention/mask.h"

namespace lh::kernels::softmax {

/// All keys of the tile are closed.
template <class Params>
XPU_HD bool closed(const Params& p, int kv_head, const AttentionKeyTile& tile) {
  return p.closed_runs &&
         p.closed_runs[std::int64_t{kv_head} * p.key_rows + tile.first] >= tile.count;
}

/// Walks the query tiles that see a key tile: segments, in each the heads of the group, in each the
/// tiles. A key tile that is closed meets only the queries whose bias window reaches it.
struct QueryWalk {
  const AttentionSchedule* schedule;
  const AttentionMask* mask;
  AttentionKeyTile work;
  int head_begin, head_end, step;

  int item = 0, head = 0, begin = 0;
  AttentionSegment segment = {};
  QueryRange range = {};
  int closed = 0;  // 1: all keys of the tile are; set before start()

  XPU_HD void start() { enter(0); }
  XPU_HD bool done() const { return item >= work.segments_count; }
  XPU_HD int key_position() const { return work.first - segment.key_begin; }
  XPU_HD int rows() const { return imin(step, range.end - begin); }

  XPU_HD void next() {
    begin += step;
    if (begin < range.end) return;
    begin = range.begin;
    if (++head < head_end) return;
    enter(item + 1);
  }

 private:
  /// To the first segment from `i` on with a query that sees a key.
  XPU_HD void enter(int i) {
    for (item = i; item < work.segments_count; ++item) {
      segment = schedule->segments[schedule->key_segments[work.segments_begin + item]];
      range = query_range(*mask, segment, key_position(), key_position() + work.count,
                          closed != 0);
      head = head_begin;
      begin = range.begin;
      if (range.begin < range.end) return;
    }
  }
};

}  // namespace lh::kernels::softmax
