// Backward pass of Parallax over tiles, scheduled as attention_schedule.h says. With a = d_out v,
// b = a - d_out intercept and e = probe mean - u, the gradients of a pair's scores are
//   d(scale q k) = p (a - d_out out + e b),   du = -p b,   and dv = sum p (1 + e) d_out:
// eight products per pair of tiles in one pass, eleven in two.
#include <algorithm>
#include <cstring>

#include "backend/cpu/attention_schedule.h"
#include "backend/cpu/parallax_internal.h"

namespace lh::cpu {
namespace {

struct LeftPack {
  void *plain, *transposed;
};

template <typename Real>
struct Scratch {
  LeftPack k[kBlock], v[kBlock];
  Real *dk[kBlock], *dv[kBlock];
  // Of the query tile in hand.
  void *q_plain, *q_lanes, *r_plain, *r_lanes, *g_plain, *g_lanes;  // g: d_out
  ProbeStatistics<Real> statistics;
  // Of the pair in hand.
  Real *scores, *u, *dp;
  void* w_left;
  SplitOperand ds, du;
  Real* dqr;  // [items][dq, dr][depth][kTile], transposed

  Scratch(Carver& carver, const ParallaxCall<Real>& call, int64_t items) {
    const int64_t k_size = int64_t{kTile} * call.depth, v_size = int64_t{kTile} * call.v_depth;
    const bool shared = call.ops.shared_layouts;
    for (int i = 0; i < kBlock; ++i) {
      k[i].plain = carver.take<Real>(k_size);
      k[i].transposed = shared ? k[i].plain : carver.take<Real>(k_size);
      v[i].plain = carver.take<Real>(v_size);
      dk[i] = carver.take<Real>(k_size);
      dv[i] = carver.take<Real>(v_size);
    }
    q_plain = carver.take<Real>(k_size);
    q_lanes = carver.take<Real>(k_size);
    r_plain = carver.take<Real>(k_size);
    r_lanes = carver.take<Real>(k_size);
    g_plain = carver.take<Real>(v_size);
    g_lanes = carver.take<Real>(v_size);
    statistics = {carver.take<Real>(kTile), carver.take<Real>(kTile), carver.take<Real>(kTile),
                  carver.take<Real>(kTile)};
    scores = carver.take<Real>(kTile * kTile);
    u = carver.take<Real>(kTile * kTile);
    dp = carver.take<Real>(kTile * kTile);
    const auto operand = [&](Real* tile) -> void* {
      return shared ? tile : carver.take<Real>(kTile * kTile);
    };
    w_left = operand(scores);
    ds = {operand(dp), operand(dp)};
    du = {operand(u), operand(u)};
    dqr = carver.take<Real>(items * 2 * k_size);
  }
};

template <typename Real>
struct Pass {
  const ParallaxCall<Real>& call;
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
    const int n = queries.count;
    ops.pack_right(call.q.at(row, head), call.q.row_stride, n, call.q.d, call.depth,
                   plain ? s.q_plain : nullptr, s.q_lanes);
    ops.pack_right(call.r.at(row, head), call.r.row_stride, n, call.r.d, call.depth,
                   plain ? s.r_plain : nullptr, s.r_lanes);
    const char* gradient = call.d_out.at(row, head);
    ops.pack_right(gradient, call.d_out.row_stride, n, call.v.d, call.v_depth,
                   plain ? s.g_plain : nullptr, s.g_lanes);
    const ProbeStatistics<Real>& to = s.statistics;
    // A query that sees nothing, and a padding column, get p = 2^-inf = 0.
    std::fill_n(to.lse2, kTile, std::numeric_limits<Real>::infinity());
    for (Real* values : {to.delta, to.intercept_delta, to.probe_mean})
      std::fill_n(values, kTile, Real(0));
    ops.row_dots(call.out.at(row, head), call.out.row_stride, gradient, call.d_out.row_stride, n,
                 call.v.d, to.delta);
    ops.row_dots(call.intercept.at(row, head), call.intercept.row_stride, gradient,
                 call.d_out.row_stride, n, call.v.d, to.intercept_delta);
    for (int i = 0; i < n; ++i) {
      const int64_t at = (row + i) * call.heads + head;
      to.probe_mean[i] = call.probe_mean[at];
      const Real lse = call.lse[at];
      if (lse != -std::numeric_limits<Real>::infinity())
        to.lse2[i] = static_cast<Real>(static_cast<double>(lse) / kLn2);
    }
  }

  /// One pair of tiles, both packed in the scratch; dqr: [dq, dr] of the query tile.
  void differentiate(const QueryTile& queries, int64_t key_begin, const VisibleRows& rows,
                     Scratch<Real>& s, int slot, Real* dqr) const {
    const auto n = static_cast<int>(call.padded_columns(queries.count));
    const int m = rows.count, d = call.q.d, dv = call.v.d;
    const LeftTile keys{s.k[slot].plain, call.depth, rows.begin};
    ops.matmul_nn(keys, s.q_lanes, kTile, s.scores, kTile, m, n, d, false);
    ops.matmul_nn(keys, s.r_lanes, kTile, s.u, kTile, m, n, d, false);
    if (rows.masked) {
      ColumnRanges ranges;
      column_ranges(call.plan.mask, queries, key_begin, rows, n, ranges);
      ops.mask(s.scores, m, n, ranges.begin, ranges.end);
    }
    ops.matmul_nn({s.v[slot].plain, call.v_depth, rows.begin}, s.g_lanes, kTile, s.dp, kTile, m, n,
                  dv, false);
    ops.probe_gradient(s.scores, s.u, s.dp, m, n, call.log2_scale(),
                       static_cast<Real>(call.plan.scale), s.statistics, s.w_left, s.ds, s.du);
    if (wanted != Wanted::kQueries) {
      Real* dk = s.dk[slot] + int64_t{rows.begin} * call.depth;
      ops.matmul_nn({s.w_left, kTile, 0}, s.g_plain, call.v_depth,
                    s.dv[slot] + int64_t{rows.begin} * call.v_depth, call.v_depth, m, dv, n, true);
      ops.matmul_nn({s.ds.left, kTile, 0}, s.q_plain, call.depth, dk, call.depth, m, d, n, true);
      ops.matmul_nn({s.du.left, kTile, 0}, s.r_plain, call.depth, dk, call.depth, m, d, n, true);
    }
    if (wanted != Wanted::kKeys) {
      const LeftTile across{s.k[slot].transposed, call.depth, rows.begin};
      ops.matmul_tn(across, s.ds.right, kTile, dqr, kTile, d, n, m, true);
      ops.matmul_tn(across, s.du.right, kTile, dqr + dq_size(), kTile, d, n, m, true);
    }
  }

  int64_t dq_size() const { return int64_t{kTile} * call.depth; }

  void store_dqr(const AttentionSegment& segment, const QueryTile& queries, int64_t head,
                 const Real* dqr) const {
    Real factor[kTile];
    std::fill_n(factor, kTile, Real(1));
    const int64_t row = segment.query_begin + queries.first;
    ops.store_columns(dqr, queries.count, call.q.d, factor, call.dq.at(row, head),
                      call.dq.row_stride);
    ops.store_columns(dqr + dq_size(), queries.count, call.q.d, factor, call.dr.at(row, head),
                      call.dr.row_stride);
  }

  /// dk and dv of key tiles [begin, end), at most kBlock; adds to dq and dr of every item unless kKeys.
  void run_key_block(const AttentionSegment& segment, int64_t kv_head, int64_t begin, int64_t end,
                     Scratch<Real>& s) const {
    const auto count = static_cast<int>(end - begin);
    const int64_t k_size = int64_t{kTile} * call.depth, v_size = int64_t{kTile} * call.v_depth;
    for (int i = 0; i < count; ++i) {
      pack_keys(segment, kv_head, begin + i, s, i);
      std::fill_n(s.dk[i], k_size, Real(0));
      std::fill_n(s.dv[i], v_size, Real(0));
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
          if (!packed) pack_queries(segment, queries, head, s);
          packed = true;
          differentiate(queries, key_begin, rows, s, i,
                        wanted == Wanted::kAll ? s.dqr + (t * call.group + h) * 2 * k_size : nullptr);
        }
      }
    }
    for (int i = 0; i < count; ++i) {
      const int64_t row = segment.key_begin + (begin + i) * kTile;
      const int keys = key_count(segment, begin + i);
      ops.store_rows(s.dk[i], call.depth, keys, call.k.d, Real(1), call.dk.at(row, kv_head),
                     call.dk.row_stride);
      ops.store_rows(s.dv[i], call.v_depth, keys, call.v.d, Real(1), call.dv.at(row, kv_head),
                     call.dv.row_stride);
    }
  }

  /// kAll or kKeys: all key blocks of the task in ascending order.
  void run_keys(const AttentionTask& task, Scratch<Real>& s) const {
    const AttentionSegment& segment = call.plan.segments[static_cast<size_t>(task.segment)];
    const int64_t items = ceil_div(segment.query_length, kTile) * call.group;
    if (wanted == Wanted::kAll) std::fill_n(s.dqr, items * 2 * dq_size(), Real(0));
    for (int64_t begin = task.begin; begin < task.end; begin += kBlock)
      run_key_block(segment, task.kv_head, begin, std::min(task.end, begin + kBlock), s);
    if (wanted != Wanted::kAll) return;
    for (int64_t i = 0; i < items; ++i)
      store_dqr(segment, query_tile(segment, i / call.group),
                task.kv_head * call.group + i % call.group, s.dqr + i * 2 * dq_size());
  }

  /// kQueries: dq and dr of one query tile and head.
  void run_queries(const AttentionTask& task, Scratch<Real>& s) const {
    const AttentionSegment& segment = call.plan.segments[static_cast<size_t>(task.segment)];
    const QueryTile queries = query_tile(segment, task.begin / call.group);
    const int64_t head = task.kv_head * call.group + task.begin % call.group;
    std::fill_n(s.dqr, 2 * dq_size(), Real(0));
    pack_queries(segment, queries, head, s);
    const KeyTileRange range =
        key_tiles(segment, call.plan.mask, queries.position, queries.last_position());
    for (int64_t tile = range.start(); tile < range.end; tile = range.next(tile)) {
      const VisibleRows rows =
          visible_rows(call.plan.mask, queries, tile * kTile, key_count(segment, tile));
      if (rows.count == 0) continue;
      pack_keys(segment, task.kv_head, tile, s, 0);
      differentiate(queries, tile * kTile, rows, s, 0, s.dqr);
    }
    store_dqr(segment, queries, head, s.dqr);
  }
};

}  // namespace

template <typename Real>
void parallax_backward_tiles(const ParallaxCall<Real>& call) {
  const int64_t item_bytes = 2 * kTile * call.depth * static_cast<int64_t>(sizeof(Real));
  schedule_backward(call, item_bytes, kBlock, [&](Wanted wanted, const auto& tasks, int64_t items) {
    const Pass<Real> pass{call, call.ops, wanted};
    run_tasks<Scratch<Real>>(
        call, tasks,
        [&](const AttentionTask& task, Scratch<Real>& scratch) {
          if (wanted == Wanted::kQueries) pass.run_queries(task, scratch);
          else pass.run_keys(task, scratch);
        },
        items);
  });
}

template void parallax_backward_tiles(const ParallaxCall<float>&);
template void parallax_backward_tiles(const ParallaxCall<double>&);

}  // namespace lh::cpu
