// Backward pass over tiles: scores are recomputed from lse, five products per pair of tiles.
//
// A key block keeps dk and dv while the queries that see it stream past. dq is summed over key
// tiles in ascending order, by one of two ways that give the same bits:
//   one pass: a task owns all key blocks of a key-value head and keeps dq of all its queries;
//   two passes: when such tasks are too few or too unequal for the threads, or dq would take too
//   much scratch; key blocks are tasks of their own, then query tiles, which repeat the products
//   for scores and dp (seven instead of five).
#include <algorithm>
#include <cstring>

#include "backend/cpu/attention_bias.h"
#include "backend/cpu/attention_internal.h"

namespace lh::cpu {
namespace {

/// Key tiles of a block: they share the cost of packing a query tile.
constexpr int kBlock = 4;
/// Scratch that a thread may use for dq in one pass.
constexpr int64_t kMaxQuerySums = int64_t{16} << 20;

enum class Wanted { kAll, kKeys, kQueries };

struct LeftPack {
  void *plain, *transposed;
};

template <typename Real>
struct Scratch {
  LeftPack k[kBlock], v[kBlock];
  Real *dk[kBlock], *dv[kBlock];
  double* dbias[kBlock];  // a long sum
  // Of the query tile in hand.
  void *q_plain, *q_lanes, *g_plain, *g_lanes;  // g: d_out
  Real *lse2, *delta;
  // Of the pair in hand.
  Real *scores, *dp;
  void *p_left, *ds_left, *ds_right;
  Real* dq;  // [items][depth][kTile], transposed

  Scratch(Carver& carver, const AttentionCall<Real>& call, int64_t items) {
    const int64_t k_size = int64_t{kTile} * call.depth, v_size = int64_t{kTile} * call.v_depth;
    const bool shared = call.ops.shared_layouts;
    for (int i = 0; i < kBlock; ++i) {
      k[i].plain = carver.take<Real>(k_size);
      k[i].transposed = shared ? k[i].plain : carver.take<Real>(k_size);
      v[i].plain = carver.take<Real>(v_size);
      dk[i] = carver.take<Real>(k_size);
      dv[i] = carver.take<Real>(v_size);
      dbias[i] = carver.take<double>(kTile);
    }
    q_plain = carver.take<Real>(k_size);
    q_lanes = carver.take<Real>(k_size);
    g_plain = carver.take<Real>(v_size);
    g_lanes = carver.take<Real>(v_size);
    lse2 = carver.take<Real>(kTile);
    delta = carver.take<Real>(kTile);
    scores = carver.take<Real>(kTile * kTile);
    dp = carver.take<Real>(kTile * kTile);
    p_left = shared ? scores : carver.take<Real>(kTile * kTile);
    ds_left = shared ? dp : carver.take<Real>(kTile * kTile);
    ds_right = shared ? dp : carver.take<Real>(kTile * kTile);
    dq = carver.take<Real>(items * k_size);
  }
};

template <typename Real>
struct Pass {
  const AttentionCall<Real>& call;
  const TileOps<Real>& ops;
  Wanted wanted;

  void pack_keys(const AttentionSegment& segment, int64_t kv_head, int64_t tile, Scratch<Real>& s,
                 int slot) const {
    const int64_t row = segment.key_begin + tile * kTile;
    const int keys = key_count(segment, tile);
    ops.pack_left(call.k.at(row, kv_head), call.k.row_stride, keys, call.k.d, call.depth,
                  s.k[slot].plain, wanted == Wanted::kKeys ? nullptr : s.k[slot].transposed);
    ops.pack_left(call.v.at(row, kv_head), call.v.row_stride, keys, call.v.d, call.v_depth,
                  s.v[slot].plain, nullptr);
  }

  static int key_count(const AttentionSegment& segment, int64_t tile) {
    return static_cast<int>(std::min<int64_t>(kTile, segment.key_length - tile * kTile));
  }

  void pack_queries(const AttentionSegment& segment, const QueryTile& queries, int64_t head,
                    Scratch<Real>& s) const {
    const int64_t row = segment.query_begin + queries.first;
    const bool plain = wanted != Wanted::kQueries;
    const char* gradient = call.d_out.at(row, head);
    ops.pack_right(call.q.at(row, head), call.q.row_stride, queries.count, call.q.d, call.depth,
                   plain ? s.q_plain : nullptr, s.q_lanes);
    ops.pack_right(gradient, call.d_out.row_stride, queries.count, call.v.d, call.v_depth,
                   plain ? s.g_plain : nullptr, s.g_lanes);
    ops.row_dots(call.out.at(row, head), call.out.row_stride, gradient, call.d_out.row_stride,
                 queries.count, call.v.d, s.delta);
    // A query that sees nothing, and a padding column, get p = 2^-inf = 0.
    std::fill_n(s.lse2, kTile, std::numeric_limits<Real>::infinity());
    std::fill(s.delta + queries.count, s.delta + kTile, Real(0));
    for (int i = 0; i < queries.count; ++i) {
      const Real lse = call.lse[(row + i) * call.heads + head];
      if (lse != -std::numeric_limits<Real>::infinity())
        s.lse2[i] = static_cast<Real>(static_cast<double>(lse) / kLn2);
    }
  }

  /// One pair of tiles, both packed in the scratch.
  void differentiate(const BiasedTile& tile, Scratch<Real>& s, int slot, Real* dq) const {
    const QueryTile& queries = tile.queries;
    const VisibleRows& rows = tile.rows;
    const bool bias_wanted = call.dbias != nullptr && wanted != Wanted::kQueries;
    const auto n = static_cast<int>(call.padded_columns(queries.count));
    const int m = rows.count, d = call.q.d, dv = call.v.d;
    ops.matmul_nn({s.k[slot].plain, call.depth, rows.begin}, s.q_lanes, kTile, s.scores, kTile, m,
                  n, d, false);
    if (call.bias != nullptr) add_bias(call, tile, n, s.scores);
    if (rows.masked) {
      ColumnRanges ranges;
      column_ranges(call.plan.mask, queries, tile.key_begin, rows, n, ranges);
      ops.mask(s.scores, m, n, ranges.begin, ranges.end);
    }
    ops.matmul_nn({s.v[slot].plain, call.v_depth, rows.begin}, s.g_lanes, kTile, s.dp, kTile, m, n,
                  dv, false);
    ops.score_gradient(s.scores, s.dp, m, n, call.log2_scale(), s.lse2, s.delta, bias_wanted,
                       s.p_left, s.ds_left, s.ds_right);
    if (bias_wanted) add_bias_gradient(call, tile, s.dp, s.dbias[slot]);
    if (wanted != Wanted::kQueries) {
      ops.matmul_nn({s.p_left, kTile, 0}, s.g_plain, call.v_depth,
                    s.dv[slot] + int64_t{rows.begin} * call.v_depth, call.v_depth, m, dv, n, true);
      ops.matmul_nn({s.ds_left, kTile, 0}, s.q_plain, call.depth,
                    s.dk[slot] + int64_t{rows.begin} * call.depth, call.depth, m, d, n, true);
    }
    if (wanted != Wanted::kKeys)
      ops.matmul_tn({s.k[slot].transposed, call.depth, rows.begin}, s.ds_right, kTile, dq, kTile, d,
                    n, m, true);
  }

  void store_dq(const AttentionSegment& segment, const QueryTile& queries, int64_t head,
                const Real* dq) const {
    Real factor[kTile];
    std::fill_n(factor, kTile, static_cast<Real>(call.plan.scale));
    const int64_t row = segment.query_begin + queries.first;
    ops.store_columns(dq, queries.count, call.q.d, factor, call.dq.at(row, head),
                      call.dq.row_stride);
  }

  /// dk and dv of key tiles [begin, end), at most kBlock; adds to dq of every item unless kKeys.
  void run_key_block(const AttentionSegment& segment, int64_t kv_head, int64_t begin, int64_t end,
                     Scratch<Real>& s) const {
    const auto count = static_cast<int>(end - begin);
    const int64_t k_size = int64_t{kTile} * call.depth, v_size = int64_t{kTile} * call.v_depth;
    for (int i = 0; i < count; ++i) {
      pack_keys(segment, kv_head, begin + i, s, i);
      std::fill_n(s.dk[i], k_size, Real(0));
      std::fill_n(s.dv[i], v_size, Real(0));
      std::fill_n(s.dbias[i], kTile, 0.0);
    }
    const QueryTileRange range = query_tiles(segment, call.plan.mask, begin * kTile,
                                             std::min(segment.key_length, end * kTile));
    for (int64_t h = 0; h < call.group; ++h) {
      for (int64_t t = range.begin; t < range.end; ++t) {
        const QueryTile queries = query_tile(segment, t);
        const int64_t head = kv_head * call.group + h;
        bool packed = false;
        for (int i = 0; i < count; ++i) {
          const int64_t key_begin = (begin + i) * kTile;
          const VisibleRows rows =
              visible_rows(call.plan.mask, queries, key_begin, key_count(segment, begin + i));
          if (rows.count == 0) continue;
          const BiasedTile tile{segment, queries, kv_head, key_begin, rows};
          if (is_closed(call, tile)) continue;
          if (!packed) pack_queries(segment, queries, head, s);
          packed = true;
          differentiate(tile, s, i,
                        wanted == Wanted::kAll ? s.dq + (t * call.group + h) * k_size : nullptr);
        }
      }
    }
    for (int i = 0; i < count; ++i) {
      const int64_t row = segment.key_begin + (begin + i) * kTile;
      const int keys = key_count(segment, begin + i);
      ops.store_rows(s.dk[i], call.depth, keys, call.k.d, static_cast<Real>(call.plan.scale),
                     call.dk.at(row, kv_head), call.dk.row_stride);
      ops.store_rows(s.dv[i], call.v_depth, keys, call.v.d, Real(1), call.dv.at(row, kv_head),
                     call.dv.row_stride);
      for (int r = 0; r < keys && call.dbias != nullptr; ++r)
        call.dbias[(row + r) * call.kv_heads + kv_head] = static_cast<Real>(s.dbias[i][r]);
    }
  }

  /// kAll or kKeys: all key blocks of the task in ascending order.
  void run_keys(const AttentionTask& task, Scratch<Real>& s) const {
    const AttentionSegment& segment = call.plan.segments[static_cast<size_t>(task.segment)];
    const int64_t k_size = int64_t{kTile} * call.depth;
    const int64_t items = ceil_div(segment.query_length, kTile) * call.group;
    if (wanted == Wanted::kAll) std::fill_n(s.dq, items * k_size, Real(0));
    for (int64_t begin = task.begin; begin < task.end; begin += kBlock)
      run_key_block(segment, task.kv_head, begin, std::min(task.end, begin + kBlock), s);
    if (wanted != Wanted::kAll) return;
    for (int64_t i = 0; i < items; ++i)
      store_dq(segment, query_tile(segment, i / call.group),
               task.kv_head * call.group + i % call.group, s.dq + i * k_size);
  }

  /// kQueries: dq of one query tile and head.
  void run_queries(const AttentionTask& task, Scratch<Real>& s) const {
    const AttentionSegment& segment = call.plan.segments[static_cast<size_t>(task.segment)];
    const QueryTile queries = query_tile(segment, task.begin / call.group);
    const int64_t head = task.kv_head * call.group + task.begin % call.group;
    std::fill_n(s.dq, int64_t{kTile} * call.depth, Real(0));
    pack_queries(segment, queries, head, s);
    const KeyTileRange range =
        key_tiles(segment, call.plan.mask, queries.position, queries.last_position());
    for (int64_t tile = range.start(); tile < range.end; tile = range.next(tile)) {
      const VisibleRows rows =
          visible_rows(call.plan.mask, queries, tile * kTile, key_count(segment, tile));
      if (rows.count == 0) continue;
      const BiasedTile biased{segment, queries, task.kv_head, tile * kTile, rows};
      if (is_closed(call, biased)) continue;
      pack_keys(segment, task.kv_head, tile, s, 0);
      differentiate(biased, s, 0, s.dq);
    }
    store_dq(segment, queries, head, s.dq);
  }
};

template <typename Real>
void run_pass(const Pass<Real>& pass, const std::vector<AttentionTask>& tasks, int64_t dq_items) {
  if (tasks.empty()) return;
  const AttentionCall<Real>& call = pass.call;
  Carver measure(nullptr);
  Scratch<Real>(measure, call, dq_items);
  const int team = static_cast<int>(
      std::min<int64_t>(omp_get_max_threads(), static_cast<int64_t>(tasks.size())));
  const Tensor memory = Tensor::empty({team, measure.used()}, DType::kU8, call.device);
  if (call.device.is_meta()) return;
#pragma omp parallel num_threads(team)
  {
    Carver carver(memory.raw() + omp_get_thread_num() * measure.used());
    Scratch<Real> scratch(carver, call, dq_items);
    call.ops.thread_begin();
#pragma omp for schedule(dynamic, 1)
    for (size_t t = 0; t < tasks.size(); ++t) {
      if (pass.wanted == Wanted::kQueries) {
        pass.run_queries(tasks[t], scratch);
      } else {
        pass.run_keys(tasks[t], scratch);
      }
    }
    call.ops.thread_end();
  }
}

}  // namespace

template <typename Real>
void backward_tiles(const AttentionCall<Real>& call) {
  int64_t items = 0, total = 0;
  for (const AttentionSegment& segment : call.plan.segments)
    items = std::max(items, ceil_div(segment.query_length, kTile) * call.group);
  const std::vector<AttentionTask> heads = key_tasks(call.plan, call.kv_heads, call.group, 0);
  for (const AttentionTask& task : heads) total += task.cost;
  // Five products against seven: one pass may lose a little of the balance.
  const bool balanced =
      heads.empty() || static_cast<double>(heads[0].cost) * omp_get_max_threads() <= 1.3 * total;
  const int64_t bytes = items * kTile * call.depth * static_cast<int64_t>(sizeof(Real));
  if (balanced && bytes <= kMaxQuerySums) {
    run_pass<Real>({call, call.ops, Wanted::kAll}, heads, items);
    return;
  }
  std::vector<int> segments;
  for (size_t s = 0; s < call.plan.segments.size(); ++s) segments.push_back(static_cast<int>(s));
  run_pass<Real>({call, call.ops, Wanted::kKeys},
                 key_tasks(call.plan, call.kv_heads, call.group, kBlock), 0);
  run_pass<Real>({call, call.ops, Wanted::kQueries},
                 query_tasks(call.plan, segments, call.kv_heads, call.group, 1), 1);
}

template void backward_tiles(const AttentionCall<float>&);
template void backward_tiles(const AttentionCall<double>&);

}  // namespace lh::cpu
