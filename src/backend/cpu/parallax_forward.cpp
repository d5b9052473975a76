// Forward pass of Parallax over tiles: attention_forward.cpp with a second score tile u = k r^T and
// a second sum of values weighted by p (u - center). The weights of a row sum to the same whatever
// its center is, so a center near the mean of u only saves digits: with e = mean of u - center,
//   out = intercept (1 + e) - sum p (u - center) v / sum p.
#include <algorithm>
#include <cmath>

#include "backend/cpu/parallax_internal.h"

namespace lh::cpu {
namespace {

/// Query tiles of a task. They share the cost of packing a key tile, and fit the second cache.
constexpr int kItems = 4;

template <typename Real>
struct Item {
  QueryTile queries;
  int64_t head = 0;
  int columns = 0;            // queries, padded
  void *q = nullptr, *r = nullptr;  // right operands
  Real *sum = nullptr, *probe_sum = nullptr;  // [v_depth][kTile], transposed, not normalised
  ProbeSums<Real> sums;
};

template <typename Real>
struct Scratch {
  Item<Real> items[kItems];
  void *k, *v, *p, *pu;
  Real *scores, *u;

  Scratch(Carver& carver, const ParallaxCall<Real>& call) {
    Real* shrink = carver.take<Real>(kTile);
    for (Item<Real>& item : items) {
      item.q = carver.take<Real>(int64_t{kTile} * call.depth);
      item.r = carver.take<Real>(int64_t{kTile} * call.depth);
      item.sum = carver.take<Real>(int64_t{kTile} * call.v_depth);
      item.probe_sum = carver.take<Real>(int64_t{kTile} * call.v_depth);
      item.sums = {carver.take<Real>(kTile), carver.take<Real>(kTile), shrink,
                   carver.take<Real>(kTile), carver.take<Real>(kTile)};
    }
    k = carver.take<Real>(int64_t{kTile} * call.depth);
    v = carver.take<Real>(int64_t{kTile} * call.v_depth);
    scores = carver.take<Real>(kTile * kTile);
    u = carver.take<Real>(kTile * kTile);
    const bool shared = call.ops.shared_layouts;
    p = shared ? scores : carver.take<Real>(kTile * kTile);
    pu = shared ? u : carver.take<Real>(kTile * kTile);
  }
};

template <typename Real>
void begin_item(const ParallaxCall<Real>& call, const AttentionSegment& segment, int64_t index,
                int64_t kv_head, Item<Real>& item) {
  item.queries = query_tile(segment, index / call.group);
  item.head = kv_head * call.group + index % call.group;
  item.columns = static_cast<int>(call.padded_columns(item.queries.count));
  const int64_t row = segment.query_begin + item.queries.first;
  for (const auto& [rows, packed] : {std::pair{&call.q, item.q}, {&call.r, item.r}})
    call.ops.pack_right(rows->at(row, item.head), rows->row_stride, item.queries.count, rows->d,
                        call.depth, nullptr, packed);
  std::fill_n(item.sum, int64_t{kTile} * call.v_depth, Real(0));
  std::fill_n(item.probe_sum, int64_t{kTile} * call.v_depth, Real(0));
  std::fill_n(item.sums.top, kTile, -std::numeric_limits<Real>::infinity());
  for (Real* sums : {item.sums.total, item.sums.center, item.sums.probe_total})
    std::fill_n(sums, kTile, Real(0));
}

template <typename Real>
void end_item(const ParallaxCall<Real>& call, const AttentionSegment& segment,
              const Item<Real>& item) {
  Real factor[kTile], gain[kTile];
  std::fill_n(gain, kTile, Real(1));
  const int64_t row = segment.query_begin + item.queries.first;
  for (int i = 0; i < item.queries.count; ++i) {
    const int64_t at = (row + i) * call.heads + item.head;
    const Real top = item.sums.top[i], total = item.sums.total[i];
    const bool blind = top == -std::numeric_limits<Real>::infinity();
    factor[i] = blind ? Real(0) : 1 / total;
    const Real beyond_center = item.sums.probe_total[i] * factor[i];
    gain[i] = 1 + beyond_center;
    call.probe_mean[at] = item.sums.center[i] + beyond_center;
    const double log2_sum = static_cast<double>(top) + std::log2(total);
    call.lse[at] = blind ? top : static_cast<Real>(log2_sum * kLn2);
  }
  call.ops.store_columns(item.sum, item.queries.count, call.v.d, factor,
                         call.intercept.at(row, item.head), call.intercept.row_stride);
  for (int64_t d = 0; d < call.v.d; ++d) {
    Real* sum = item.sum + d * kTile;
    const Real* probe_sum = item.probe_sum + d * kTile;
    for (int i = 0; i < kTile; ++i) sum[i] = sum[i] * gain[i] - probe_sum[i];
  }
  call.ops.store_columns(item.sum, item.queries.count, call.v.d, factor,
                         call.out.at(row, item.head), call.out.row_stride);
}

/// Adds one key tile, packed in the scratch, to the running sums of one query tile.
template <typename Real>
void attend(const ParallaxCall<Real>& call, const Scratch<Real>& s, const Item<Real>& item,
            int64_t key_begin, const VisibleRows& rows) {
  const TileOps<Real>& ops = call.ops;
  const LeftTile keys{s.k, call.depth, rows.begin}, values{s.v, call.v_depth, rows.begin};
  const int m = rows.count, n = item.columns;
  ops.matmul_nn(keys, item.q, kTile, s.scores, kTile, m, n, call.q.d, false);
  ops.matmul_nn(keys, item.r, kTile, s.u, kTile, m, n, call.q.d, false);
  if (rows.masked) {
    ColumnRanges ranges;
    column_ranges(call.plan.mask, item.queries, key_begin, rows, n, ranges);
    ops.mask(s.scores, m, n, ranges.begin, ranges.end);
  }
  if (ops.softmax_probe(s.scores, s.u, m, n, call.log2_scale(), item.sums, s.p, s.pu)) {
    ops.scale_columns(item.sum, call.v.d, n, item.sums.shrink);
    ops.scale_columns(item.probe_sum, call.v.d, n, item.sums.shrink);
  }
  ops.matmul_tn(values, s.p, kTile, item.sum, kTile, call.v.d, n, m, true);
  ops.matmul_tn(values, s.pu, kTile, item.probe_sum, kTile, call.v.d, n, m, true);
}

template <typename Real>
void run_task(const ParallaxCall<Real>& call, const AttentionTask& task, Scratch<Real>& s) {
  const AttentionSegment& segment = call.plan.segments[static_cast<size_t>(task.segment)];
  const auto count = static_cast<int>(task.end - task.begin);
  for (int i = 0; i < count; ++i)
    begin_item(call, segment, task.begin + i, task.kv_head, s.items[i]);

  const KeyTileRange range = key_tiles(segment, call.plan.mask, s.items[0].queries.position,
                                       s.items[count - 1].queries.last_position());
  for (int64_t tile = range.start(); tile < range.end; tile = range.next(tile)) {
    const int64_t key_begin = tile * kTile;
    const auto keys = static_cast<int>(std::min<int64_t>(kTile, segment.key_length - key_begin));
    const int64_t row = segment.key_begin + key_begin;
    bool packed = false;
    for (int i = 0; i < count; ++i) {
      const VisibleRows rows = visible_rows(call.plan.mask, s.items[i].queries, key_begin, keys);
      if (rows.count == 0) continue;
      if (!packed) {
        call.ops.pack_left(call.k.at(row, task.kv_head), call.k.row_stride, keys, call.k.d,
                           call.depth, s.k, nullptr);
        call.ops.pack_left(call.v.at(row, task.kv_head), call.v.row_stride, keys, call.v.d,
                           call.v_depth, nullptr, s.v);
        packed = true;
      }
      attend(call, s, s.items[i], key_begin, rows);
    }
  }
  for (int i = 0; i < count; ++i) end_item(call, segment, s.items[i]);
}

}  // namespace

template <typename Real>
void parallax_forward_tiles(const ParallaxCall<Real>& call, const std::vector<int>& segments) {
  // The items of a task are independent, so their number may follow the machine without changing
  // a bit of the result.
  const int threads = omp_get_max_threads();
  std::vector<AttentionTask> tasks;
  for (int items = kItems; items >= 1; items /= 2) {
    tasks = query_tasks(call.plan, segments, call.kv_heads, call.group, items);
    if (static_cast<int64_t>(tasks.size()) >= 4 * threads) break;
  }
  if (tasks.empty()) return;
  Carver measure(nullptr);
  Scratch<Real>(measure, call);
  const int team = static_cast<int>(std::min<int64_t>(threads, static_cast<int64_t>(tasks.size())));
  const Tensor memory = Tensor::empty({team, measure.used()}, DType::kU8, call.device);
  if (call.device.is_meta()) return;
#pragma omp parallel num_threads(team)
  {
    Carver carver(memory.raw() + omp_get_thread_num() * measure.used());
    Scratch<Real> scratch(carver, call);
    call.ops.thread_begin();
#pragma omp for schedule(dynamic, 1)
    for (size_t t = 0; t < tasks.size(); ++t) run_task(call, tasks[t], scratch);
    call.ops.thread_end();
  }
}

template void parallax_forward_tiles(const ParallaxCall<float>&, const std::vector<int>&);
template void parallax_forward_tiles(const ParallaxCall<double>&, const std::vector<int>&);

}  // namespace lh::cpu
