// Backward pass over tiles: scores are recomputed from lse, five products per pair of tiles.
//
// A key block keeps dk and dv while the queries that see it stream past; dq by one of the two ways
// of attention_schedule.h (seven products in two passes). Where a bias closes keys, the open ones of
// a run of tiles come first, gathered into tiles of their own (attention_gather.h): the sums of the
// tiles they are from begin with theirs.
#include <algorithm>

#include "backend/cpu/attention_bias.h"
#include "backend/cpu/attention_gather.h"
#include "backend/cpu/attention_schedule.h"

namespace lh::cpu {
namespace {

struct LeftPack {
  void *plain, *transposed;
};

/// Gradients of a key tile.
template <typename Real>
struct KeySums {
  Real *dk, *dv;
  double* dbias;  // a long sum

  KeySums() = default;
  KeySums(Carver& carver, const AttentionCall<Real>& call)
      : dk(carver.take<Real>(int64_t{kTile} * call.depth)),
        dv(carver.take<Real>(int64_t{kTile} * call.v_depth)),
        dbias(carver.take<double>(kTile)) {}
  void clear(const AttentionCall<Real>& call) const {
    std::fill_n(dk, int64_t{kTile} * call.depth, Real(0));
    std::fill_n(dv, int64_t{kTile} * call.v_depth, Real(0));
    std::fill_n(dbias, kTile, 0.0);
  }
};

template <typename Real>
struct Scratch {
  LeftPack k[kBlock], v[kBlock];
  KeySums<Real> sums[kBlock];
  // Of the run of key tiles in hand.
  KeyRun run;
  GatheredRows<Real> rows;
  KeySums<Real> gathered[KeyRun::kGathered];
  RowBias<Real> bias[KeyRun::kGathered];
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
      sums[i] = KeySums<Real>(carver, call);
    }
    if (may_gather(call)) {
      rows = GatheredRows<Real>(carver, call);
      for (KeySums<Real>& tile : gathered) tile = KeySums<Real>(carver, call);
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
  bool gathers;  // some keys are closed

  void pack(const char* k, int64_t k_stride, const char* v, int64_t v_stride, int keys,
            Scratch<Real>& s, int slot) const {
    ops.pack_left(k, k_stride, keys, call.k.d, call.depth, s.k[slot].plain,
                  wanted == Wanted::kKeys ? nullptr : s.k[slot].transposed);
    ops.pack_left(v, v_stride, keys, call.v.d, call.v_depth, s.v[slot].plain, nullptr);
  }
  void pack_keys(const AttentionSegment& segment, int64_t kv_head, int64_t tile, Scratch<Real>& s,
                 int slot) const {
    const int64_t row = segment.key_begin + tile * kTile;
    pack(call.k.at(row, kv_head), call.k.row_stride, call.v.at(row, kv_head), call.v.row_stride,
         key_count(segment, tile), s, slot);
  }
  void pack_gathered(const AttentionSegment& segment, int64_t kv_head, int tile, Scratch<Real>& s,
                     int slot) const {
    s.rows.count = 0;
    for (int r = 0; r < s.run.rows_of(tile); ++r)
      s.rows.add(call, segment.key_begin + s.run.keys[tile * kTile + r], kv_head);
    pack(s.rows.k, call.k.d, s.rows.v, call.v.d, s.rows.count, s, slot);
    std::copy_n(s.rows.bias, s.rows.count, s.bias[slot].bias);
    std::fill_n(s.bias[slot].first, kTile, 0);
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

  /// One pair of tiles, both packed in the scratch; bias and ranges may be null: nothing to add,
  /// nothing to mask.
  void differentiate(const QueryTile& queries, const VisibleRows& rows, const RowBias<Real>* bias,
                     const ColumnRanges* ranges, Scratch<Real>& s, int slot,
                     const KeySums<Real>& sums, Real* dq) const {
    const bool bias_wanted = call.dbias != nullptr && wanted != Wanted::kQueries;
    const auto n = static_cast<int>(call.padded_columns(queries.count));
    const int m = rows.count, d = call.q.d, dv = call.v.d;
    ops.matmul_nn({s.k[slot].plain, call.depth, rows.begin}, s.q_lanes, kTile, s.scores, kTile, m,
                  n, d, false);
    if (bias != nullptr) ops.add_bias(s.scores, m, n, bias->bias, bias->first);
    if (ranges != nullptr) ops.mask(s.scores, m, n, ranges->begin, ranges->end);
    ops.matmul_nn({s.v[slot].plain, call.v_depth, rows.begin}, s.g_lanes, kTile, s.dp, kTile, m, n,
                  dv, false);
    ops.score_gradient(s.scores, s.dp, m, n, call.log2_scale(), s.lse2, s.delta, bias_wanted,
                       s.p_left, s.ds_left, s.ds_right);
    if (bias_wanted && bias != nullptr)
      ops.add_row_sums(s.dp, m, n, bias->first, sums.dbias + rows.begin);
    if (wanted != Wanted::kQueries) {
      ops.matmul_nn({s.p_left, kTile, 0}, s.g_plain, call.v_depth,
                    sums.dv + int64_t{rows.begin} * call.v_depth, call.v_depth, m, dv, n, true);
      ops.matmul_nn({s.ds_left, kTile, 0}, s.q_plain, call.depth,
                    sums.dk + int64_t{rows.begin} * call.depth, call.depth, m, d, n, true);
    }
    if (wanted != Wanted::kKeys)
      ops.matmul_tn({s.k[slot].transposed, call.depth, rows.begin}, s.ds_right, kTile, dq, kTile, d,
                    n, m, true);
  }
  void differentiate(const BiasedTile& tile, Scratch<Real>& s, int slot, Real* dq) const {
    const auto n = static_cast<int>(call.padded_columns(tile.queries.count));
    RowBias<Real> bias;
    ColumnRanges ranges;
    const bool biased = call.bias != nullptr || call.dbias != nullptr;
    if (biased) row_bias(call, tile, n, bias);
    if (tile.rows.masked)
      column_ranges(call.plan.mask, tile.queries, tile.key_begin, tile.rows, n, ranges);
    differentiate(tile.queries, tile.rows, biased ? &bias : nullptr,
                  tile.rows.masked ? &ranges : nullptr, s, slot, s.sums[slot], dq);
  }

  void store_dq(const AttentionSegment& segment, const QueryTile& queries, int64_t head,
                const Real* dq) const {
    Real factor[kTile];
    std::fill_n(factor, kTile, static_cast<Real>(call.plan.scale));
    const int64_t row = segment.query_begin + queries.first;
    ops.store_columns(dq, queries.count, call.q.d, factor, call.dq.at(row, head),
                      call.dq.row_stride);
  }

  /// The rows of a key tile of which the query tile sees any, unless it adds nothing or the query
  /// tile reads its open keys where they are gathered.
  VisibleRows rows_to_read(const AttentionSegment& segment, int64_t kv_head, int64_t tile,
                           const QueryTile& queries, const KeyRun& run) const {
    const VisibleRows rows =
        visible_rows(call.plan.mask, queries, tile * kTile, key_count(segment, tile));
    if (rows.count == 0) return {};
    if (gathers && run.takes(segment, call.plan.mask, tile, queries.position)) return {};
    if (is_closed(call, {segment, queries, kv_head, tile * kTile, rows})) return {};
    return rows;
  }

  /// Calls visit(queries, dq, pack) for all query tiles and heads that see any of key tiles
  /// [begin, end); pack() packs the query tile, once. dq is null for kKeys.
  template <typename F>
  void for_queries(const AttentionSegment& segment, int64_t kv_head, int64_t begin, int64_t end,
                   Scratch<Real>& s, F&& visit) const {
    const QueryTileRange range = query_tiles(segment, call.plan.mask, begin * kTile,
                                             std::min(segment.key_length, end * kTile));
    for (int64_t h = 0; h < call.group; ++h) {
      for (int64_t t = range.begin; t < range.end; ++t) {
        const QueryTile queries = query_tile(segment, t);
        bool packed = false;
        visit(queries, wanted == Wanted::kAll ? item_dq(s, t * call.group + h) : nullptr, [&] {
          if (!packed) pack_queries(segment, queries, kv_head * call.group + h, s);
          packed = true;
        });
      }
    }
  }
  Real* item_dq(const Scratch<Real>& s, int64_t item) const {
    return s.dq + item * kTile * call.depth;
  }

  /// The gathered tiles of the run in hand: fills s.gathered and adds to dq.
  void run_gathered(const AttentionSegment& segment, int64_t kv_head, Scratch<Real>& s) const {
    const int tiles = s.run.gathered_tiles();
    for (int i = 0; i < tiles; ++i) {
      pack_gathered(segment, kv_head, i, s, i);
      s.gathered[i].clear(call);
    }
    if (tiles == 0) return;
    for_queries(segment, kv_head, s.run.begin, s.run.end, s,
                [&](const QueryTile& queries, Real* dq, const auto& pack_once) {
                  for (int i = 0; i < tiles; ++i) {
                    const int rows =
                        s.run.remote_rows(segment, call.plan.mask, i, queries.position);
                    if (rows == 0) break;
                    pack_once();
                    differentiate(queries, {0, rows, false}, &s.bias[i], nullptr, s, i,
                                  s.gathered[i], dq);
                  }
                });
  }

  /// Puts the sums of gathered keys into those of the key tiles [begin, end) they are from.
  void scatter(int64_t begin, int64_t end, const Scratch<Real>& s) const {
    for (int i = 0; i < s.run.count; ++i) {
      const int64_t tile = s.run.keys[i] / kTile, to = s.run.keys[i] % kTile, from = i % kTile;
      if (tile < begin || tile >= end) continue;
      const KeySums<Real>&source = s.gathered[i / kTile], &target = s.sums[tile - begin];
      std::copy_n(source.dk + from * call.depth, call.depth, target.dk + to * call.depth);
      std::copy_n(source.dv + from * call.v_depth, call.v_depth, target.dv + to * call.v_depth);
      target.dbias[to] = source.dbias[from];
    }
  }

  /// dk and dv of key tiles [begin, end) of the run in hand, at most kBlock; adds to dq of every
  /// item unless kKeys.
  void run_key_block(const AttentionSegment& segment, int64_t kv_head, int64_t begin, int64_t end,
                     Scratch<Real>& s) const {
    const auto count = static_cast<int>(end - begin);
    for (int i = 0; i < count; ++i) {
      pack_keys(segment, kv_head, begin + i, s, i);
      s.sums[i].clear(call);
    }
    scatter(begin, end, s);
    for_queries(segment, kv_head, begin, end, s,
                [&](const QueryTile& queries, Real* dq, const auto& pack_once) {
                  for (int i = 0; i < count; ++i) {
                    const VisibleRows rows =
                        rows_to_read(segment, kv_head, begin + i, queries, s.run);
                    if (rows.count == 0) continue;
                    pack_once();
                    differentiate({segment, queries, kv_head, (begin + i) * kTile, rows}, s, i, dq);
                  }
                });
    for (int i = 0; i < count; ++i) {
      const int64_t row = segment.key_begin + (begin + i) * kTile;
      const int keys = key_count(segment, begin + i);
      ops.store_rows(s.sums[i].dk, call.depth, keys, call.k.d, static_cast<Real>(call.plan.scale),
                     call.dk.at(row, kv_head), call.dk.row_stride);
      ops.store_rows(s.sums[i].dv, call.v_depth, keys, call.v.d, Real(1), call.dv.at(row, kv_head),
                     call.dv.row_stride);
      for (int r = 0; r < keys && call.dbias != nullptr; ++r)
        call.dbias[(row + r) * call.kv_heads + kv_head] = static_cast<Real>(s.sums[i].dbias[r]);
    }
  }

  /// Makes s.run the one that begins at tile `begin`; without closed keys it is all up to `end`.
  void take_run(const AttentionSegment& segment, int64_t kv_head, int64_t begin, int64_t end,
                Scratch<Real>& s) const {
    s.run.begin = begin;
    s.run.end = end;
    s.run.count = 0;
    if (gathers) find_run(call, segment, kv_head, begin, s.run);
  }

  /// kAll or kKeys: all key blocks of the task in ascending order.
  void run_keys(const AttentionTask& task, Scratch<Real>& s) const {
    const AttentionSegment& segment = call.plan.segments[static_cast<size_t>(task.segment)];
    const int64_t items = ceil_div(segment.query_length, kTile) * call.group;
    if (wanted == Wanted::kAll) std::fill_n(s.dq, items * kTile * call.depth, Real(0));
    for (int64_t at = task.begin; at < task.end; at = s.run.end) {
      take_run(segment, task.kv_head, at, task.end, s);
      run_gathered(segment, task.kv_head, s);
      for (int64_t begin = at; begin < s.run.end; begin += kBlock)
        run_key_block(segment, task.kv_head, begin, std::min(s.run.end, begin + kBlock), s);
    }
    if (wanted != Wanted::kAll) return;
    for (int64_t i = 0; i < items; ++i)
      store_dq(segment, query_tile(segment, i / call.group),
               task.kv_head * call.group + i % call.group, item_dq(s, i));
  }

  /// kQueries: dq of one query tile and head, in the order of run_keys.
  void run_queries(const AttentionTask& task, Scratch<Real>& s) const {
    const AttentionSegment& segment = call.plan.segments[static_cast<size_t>(task.segment)];
    const QueryTile queries = query_tile(segment, task.begin / call.group);
    const int64_t head = task.kv_head * call.group + task.begin % call.group;
    std::fill_n(s.dq, int64_t{kTile} * call.depth, Real(0));
    pack_queries(segment, queries, head, s);
    const KeyTileRange range =
        key_tiles(segment, call.plan.mask, queries.position, queries.last_position());
    s.run.end = 0;
    for (int64_t tile = range.start(); tile < range.end; tile = range.next(tile)) {
      if (gathers && tile == s.run.end) {
        take_run(segment, task.kv_head, tile, range.end, s);
        for (int i = 0; i < s.run.gathered_tiles(); ++i) {
          const int rows = s.run.remote_rows(segment, call.plan.mask, i, queries.position);
          if (rows == 0) break;
          pack_gathered(segment, task.kv_head, i, s, 0);
          differentiate(queries, {0, rows, false}, &s.bias[0], nullptr, s, 0, s.gathered[0], s.dq);
        }
      }
      const VisibleRows rows = rows_to_read(segment, task.kv_head, tile, queries, s.run);
      if (rows.count == 0) continue;
      pack_keys(segment, task.kv_head, tile, s, 0);
      differentiate({segment, queries, task.kv_head, tile * kTile, rows}, s, 0, s.dq);
    }
    store_dq(segment, queries, head, s.dq);
  }
};

}  // namespace

template <typename Real>
void backward_tiles(const AttentionCall<Real>& call) {
  const int64_t item_bytes = int64_t{kTile} * call.depth * static_cast<int64_t>(sizeof(Real));
  const bool gathers = closes_keys(call);
  const int64_t key_tiles = gathers ? KeyRun::kTiles : kBlock;
  schedule_backward(call, item_bytes, key_tiles, [&](Wanted wanted, const auto& tasks,
                                                     int64_t items) {
    const Pass<Real> pass{call, call.ops, wanted, gathers};
    run_tasks<Scratch<Real>>(
        call, tasks,
        [&](const AttentionTask& task, Scratch<Real>& scratch) {
          if (wanted == Wanted::kQueries) pass.run_queries(task, scratch);
          else pass.run_keys(task, scratch);
        },
        items);
  });
}

template void backward_tiles(const AttentionCall<float>&);
template void backward_tiles(const AttentionCall<double>&);

}  // namespace lh::cpu
