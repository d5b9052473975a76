// Forward pass over tiles (FlashAttention-2, Dao 2023): a task keeps a few query tiles and their
// running softmax while the keys they see stream past, packed once for all of them. Where a bias
// closes some keys of a tile that all queries have left behind, the open ones are gathered into
// full tiles, so that the cost follows their number.
#include <algorithm>
#include <cmath>

#include "backend/cpu/attention_bias.h"
#include "backend/cpu/attention_gather.h"
#include "backend/cpu/attention_schedule.h"

namespace lh::cpu {
namespace {

/// Query tiles of a task. Four share the cost of packing a key tile, and fit the second cache.
constexpr int kItems = 4;

template <typename Real>
struct Item {
  QueryTile queries;
  int64_t head = 0;
  int columns = 0;      // queries, padded
  void* q = nullptr;    // right operand
  Real* sum = nullptr;  // [v_depth][kTile], transposed output before normalisation
  Real *top = nullptr, *total = nullptr;
};

template <typename Real>
struct Scratch {
  Item<Real> items[kItems];
  void *k, *v, *p;
  Real *scores, *shrink;
  GatheredRows<Real> gathered;

  Scratch(Carver& carver, const AttentionCall<Real>& call) {
    for (Item<Real>& item : items) {
      item.q = carver.take<Real>(int64_t{kTile} * call.depth);
      item.sum = carver.take<Real>(int64_t{kTile} * call.v_depth);
      item.top = carver.take<Real>(kTile);
      item.total = carver.take<Real>(kTile);
    }
    k = carver.take<Real>(int64_t{kTile} * call.depth);
    v = carver.take<Real>(int64_t{kTile} * call.v_depth);
    scores = carver.take<Real>(kTile * kTile);
    p = call.ops.shared_layouts ? scores : carver.take<Real>(kTile * kTile);
    shrink = carver.take<Real>(kTile);
    if (may_gather(call)) gathered = GatheredRows<Real>(carver, call);
  }
};

template <typename Real>
void begin_item(const AttentionCall<Real>& call, const AttentionSegment& segment, int64_t index,
                int64_t kv_head, Item<Real>& item) {
  item.queries = query_tile(segment, index / call.group);
  item.head = kv_head * call.group + index % call.group;
  item.columns = static_cast<int>(call.padded_columns(item.queries.count));
  call.ops.pack_right(call.q.at(segment.query_begin + item.queries.first, item.head),
                      call.q.row_stride, item.queries.count, call.q.d, call.depth, nullptr, item.q);
  std::fill_n(item.sum, int64_t{kTile} * call.v_depth, Real(0));
  std::fill_n(item.top, kTile, -std::numeric_limits<Real>::infinity());
  std::fill_n(item.total, kTile, Real(0));
}

template <typename Real>
void end_item(const AttentionCall<Real>& call, const AttentionSegment& segment,
              const Item<Real>& item) {
  Real factor[kTile];
  const int64_t row = segment.query_begin + item.queries.first;
  for (int i = 0; i < item.queries.count; ++i) {
    const bool blind = item.top[i] == -std::numeric_limits<Real>::infinity();
    factor[i] = blind ? Real(0) : 1 / item.total[i];
    const double log2_sum = static_cast<double>(item.top[i]) + std::log2(item.total[i]);
    call.lse[(row + i) * call.heads + item.head] =
        blind ? item.top[i] : static_cast<Real>(log2_sum * kLn2);
  }
  call.ops.store_columns(item.sum, item.queries.count, call.v.d, factor,
                         call.out.at(row, item.head), call.out.row_stride);
}

/// Adds rows [first, first + count) of the key tile packed in the scratch to the running softmax of
/// one query tile; adjust(scores) puts bias and mask on the scores.
template <typename Real, typename F>
void attend(const AttentionCall<Real>& call, const Scratch<Real>& scratch, const Item<Real>& item,
            int first, int count, F&& adjust) {
  const TileOps<Real>& ops = call.ops;
  ops.matmul_nn({scratch.k, call.depth, first}, item.q, kTile, scratch.scores, kTile, count,
                item.columns, call.q.d, false);
  adjust(scratch.scores);
  if (ops.softmax(scratch.scores, count, item.columns, call.log2_scale(), item.top, item.total,
                  scratch.shrink, scratch.p))
    ops.scale_columns(item.sum, call.v.d, item.columns, scratch.shrink);
  ops.matmul_tn({scratch.v, call.v_depth, first}, scratch.p, kTile, item.sum, kTile, call.v.d,
                item.columns, count, true);
}

template <typename Real>
void attend(const AttentionCall<Real>& call, const Scratch<Real>& scratch, const Item<Real>& item,
            const BiasedTile& tile) {
  const VisibleRows& rows = tile.rows;
  attend(call, scratch, item, rows.begin, rows.count, [&](Real* scores) {
    if (call.bias != nullptr) {
      RowBias<Real> bias;
      row_bias(call, tile, item.columns, bias);
      call.ops.add_bias(scores, rows.count, item.columns, bias.bias, bias.first);
    }
    if (!rows.masked) return;
    ColumnRanges ranges;
    column_ranges(call.plan.mask, item.queries, tile.key_begin, rows, item.columns, ranges);
    call.ops.mask(scores, rows.count, item.columns, ranges.begin, ranges.end);
  });
}

/// Packs rows keys at k and v into the scratch.
template <typename Real>
void pack_keys(const AttentionCall<Real>& call, const Scratch<Real>& scratch, const char* k,
               int64_t k_stride, const char* v, int64_t v_stride, int rows) {
  call.ops.pack_left(k, k_stride, rows, call.k.d, call.depth, scratch.k, nullptr);
  call.ops.pack_left(v, v_stride, rows, call.v.d, call.v_depth, nullptr, scratch.v);
}

/// The gathered keys, for all query tiles of a task.
template <typename Real>
void attend_gathered(const AttentionCall<Real>& call, Scratch<Real>& scratch, int items) {
  GatheredRows<Real>& rows = scratch.gathered;
  if (rows.count == 0) return;
  pack_keys(call, scratch, rows.k, call.k.d, rows.v, call.v.d, rows.count);
  constexpr int kFirst[kTile] = {};
  for (int i = 0; i < items; ++i) {
    const Item<Real>& item = scratch.items[i];
    attend(call, scratch, item, 0, rows.count, [&](Real* scores) {
      call.ops.add_bias(scores, rows.count, item.columns, rows.bias, kFirst);
    });
  }
  rows.count = 0;
}

/// Gathers the open ones of `keys` keys from row `row` of k and v, if it is worth it: true when
/// some are closed, and all are outside the bias window of queries at `position` and later.
template <typename Real>
bool gather(const AttentionCall<Real>& call, const AttentionTask& task, int items, int64_t row,
            int64_t last_key, int keys, int64_t position, Scratch<Real>& scratch) {
  if (!may_gather(call) || !is_remote(call.plan.mask, last_key, position)) return false;
  const Real* bias = call.bias + row * call.kv_heads + task.kv_head;
  int open = 0;
  for (int r = 0; r < keys; ++r) open += is_open(bias[r * call.kv_heads]);
  if (open == keys) return false;
  for (int r = 0; r < keys; ++r) {
    if (!is_open(bias[r * call.kv_heads])) continue;
    scratch.gathered.add(call, row + r, task.kv_head);
    if (scratch.gathered.count == kTile) attend_gathered(call, scratch, items);
  }
  return true;
}

template <typename Real>
void run_task(const AttentionCall<Real>& call, const AttentionTask& task, Scratch<Real>& scratch) {
  const AttentionSegment& segment = call.plan.segments[static_cast<size_t>(task.segment)];
  const auto count = static_cast<int>(task.end - task.begin);
  for (int i = 0; i < count; ++i)
    begin_item(call, segment, task.begin + i, task.kv_head, scratch.items[i]);

  const KeyTileRange range = key_tiles(segment, call.plan.mask, scratch.items[0].queries.position,
                                       scratch.items[count - 1].queries.last_position());
  // Which keys are gathered decides the order of sums, so it must not follow the number of items:
  // no task crosses a multiple of kItems query tiles.
  const int64_t position =
      query_tile(segment, task.begin / call.group / kItems * kItems).position;
  for (int64_t tile = range.start(); tile < range.end; tile = range.next(tile)) {
    const int64_t key_begin = tile * kTile;
    const auto keys = static_cast<int>(std::min<int64_t>(kTile, segment.key_length - key_begin));
    const int64_t row = segment.key_begin + key_begin;
    if (gather(call, task, count, row, key_begin + keys - 1, keys, position, scratch))
      continue;
    bool packed = false;
    for (int i = 0; i < count; ++i) {
      const VisibleRows rows =
          visible_rows(call.plan.mask, scratch.items[i].queries, key_begin, keys);
      if (rows.count == 0) continue;
      const BiasedTile biased{segment, scratch.items[i].queries, task.kv_head, key_begin, rows};
      if (is_closed(call, biased)) continue;
      if (!packed) {
        pack_keys(call, scratch, call.k.at(row, task.kv_head), call.k.row_stride,
                  call.v.at(row, task.kv_head), call.v.row_stride, keys);
        packed = true;
      }
      attend(call, scratch, scratch.items[i], biased);
    }
  }
  attend_gathered(call, scratch, count);
  for (int i = 0; i < count; ++i) end_item(call, segment, scratch.items[i]);
}

}  // namespace

template <typename Real>
void forward_tiles(const AttentionCall<Real>& call, const std::vector<int>& segments) {
  run_tasks<Scratch<Real>>(
      call, shared_query_tasks(call.plan, segments, call.kv_heads, call.group, kItems),
      [&](const AttentionTask& task, Scratch<Real>& scratch) { run_task(call, task, scratch); });
}

template void forward_tiles(const AttentionCall<float>&, const std::vector<int>&);
template void forward_tiles(const AttentionCall<double>&, const std::vector<int>&);

}  // namespace lh::cpu
