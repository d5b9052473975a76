#include "backend/attention.h"

#include <algorithm>

#include "backend/cpu/attention_internal.h"
#include "backend/operands.h"
#include "backend/cpu/simd/attention_bf16.h"
#include "backend/cpu/simd/attention_tiles.h"

namespace lh::cpu {
namespace {

constexpr const char* kOp = "attention";

/// [rows, heads, d] of the dtype of q, heads and channels contiguous.
void check_rows(const Tensor& t, const Tensor& q, std::string_view name) {
  check_rank(t, 3, kOp, name);
  check_dtype(t, q.dtype(), kOp, name);
  const bool heads_ok = t.size(1) == 1 || t.strides()[1] == t.size(2);
  if (!heads_ok || (t.size(2) > 1 && t.strides()[2] != 1))
    fail<ShapeError>("[{}] {}: heads and channels must be contiguous, got {} with strides {}", kOp,
                     name, t.str(), t.strides().str());
}

struct Interval {
  int64_t begin, end;
};

/// Throws when an interval leaves [0, rows) or meets another. Empty intervals are dropped, the
/// rest is returned in ascending order.
std::vector<Interval> disjoint(std::vector<Interval> intervals, int64_t rows,
                               std::string_view name) {
  std::erase_if(intervals, [](const Interval& i) { return i.begin == i.end; });
  std::sort(intervals.begin(), intervals.end(),
            [](const Interval& a, const Interval& b) { return a.begin < b.begin; });
  int64_t at = 0;
  for (const Interval& i : intervals) {
    if (i.begin < at || i.end < i.begin || i.end > rows)
      fail<ShapeError>(
          "[{}] {} of a segment, rows [{}, {}): expected disjoint ranges within {} rows", kOp, name,
          i.begin, i.end, rows);
    at = i.end;
  }
  return intervals;
}

std::vector<Interval> query_ranges(const AttentionPlan& plan, int64_t rows, bool with_keys_only) {
  std::vector<Interval> ranges;
  for (const AttentionSegment& s : plan.segments)
    if (!with_keys_only || s.key_length > 0)
      ranges.push_back({s.query_begin, s.query_begin + s.query_length});
  return disjoint(std::move(ranges), rows, "queries");
}

/// Calls fill(row) for each row outside the ranges.
template <typename F>
void for_rows_outside(const std::vector<Interval>& ranges, int64_t rows, F&& fill) {
  int64_t row = 0;
  for (const Interval& range : ranges) {
    for (; row < range.begin; ++row) fill(row);
    row = range.end;
  }
  for (; row < rows; ++row) fill(row);
}

void zero_rows_outside(const std::vector<Interval>& ranges, Tensor& t) {
  const HeadRows rows(t);
  const auto bytes = static_cast<size_t>(t.size(1) * rows.d * rows.element_bytes);
  for_rows_outside(ranges, t.size(0), [&](int64_t row) { std::fill_n(rows.at(row, 0), bytes, 0); });
}

template <typename Real>
AttentionCall<Real> make_call(const Tensor& q, const Tensor& k, const Tensor& v,
                              const AttentionPlan& plan, const Tensor& out, const Tensor& lse) {
  check_rows(q, q, "q");
  check_rows(k, q, "k");
  check_rows(v, q, "v");
  check_rows(out, q, "out");
  if (k.size(1) == 0 || q.size(1) % k.size(1) != 0)
    fail<ShapeError>("[{}] {} query heads are not a multiple of {} key-value heads", kOp, q.size(1),
                     k.size(1));
  check_shape(k, {k.size(0), k.size(1), q.size(2)}, kOp, "k");
  check_shape(v, {k.size(0), k.size(1), v.size(2)}, kOp, "v");
  check_shape(out, {q.size(0), q.size(1), v.size(2)}, kOp, "out");
  check_sum(lse, {q.size(0), q.size(1)}, q.dtype(), kOp, "lse");
  if (!(plan.scale > 0) || plan.mask.window < 0 || plan.mask.sinks < 0)
    fail<ShapeError>("[{}] expected scale > 0, window >= 0 and sinks >= 0, got {}, {} and {}", kOp,
                     plan.scale, plan.mask.window, plan.mask.sinks);
  for (const AttentionSegment& s : plan.segments)
    if (s.key_length < 0 || s.key_begin < 0 || s.key_begin + s.key_length > k.size(0))
      fail<ShapeError>("[{}] keys of a segment, rows [{}, {}): expected a range within {} rows",
                       kOp, s.key_begin, s.key_begin + s.key_length, k.size(0));

  AttentionCall<Real> call{plan, tile_ops<Real>(q.dtype())};
  call.q = HeadRows(q);
  call.k = HeadRows(k);
  call.v = HeadRows(v);
  call.out = HeadRows(out);
  call.lse = lse.data<Real>();
  call.heads = q.size(1);
  call.kv_heads = k.size(1);
  call.group = call.heads / call.kv_heads;
  call.depth = static_cast<int>(round_up(call.q.d, call.ops.depth_multiple));
  call.v_depth = static_cast<int>(round_up(call.v.d, call.ops.depth_multiple));
  return call;
}

template <typename Real>
void forward(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionPlan& plan,
             Tensor& out, Tensor& lse) {
  const AttentionCall<Real> call = make_call<Real>(q, k, v, plan, out, lse);
  const std::vector<Interval> ranges = query_ranges(plan, q.size(0), false);
  zero_rows_outside(ranges, out);
  for_rows_outside(ranges, q.size(0), [&](int64_t row) {
    std::fill_n(call.lse + row * call.heads, call.heads, -std::numeric_limits<Real>::infinity());
  });
  std::vector<int> tiled, decoding;
  for (size_t s = 0; s < plan.segments.size(); ++s) {
    const bool few = is_decoding(plan.segments[s], call.group, q.dtype());
    (few ? decoding : tiled).push_back(static_cast<int>(s));
  }
  forward_tiles(call, tiled);
  if constexpr (std::is_same_v<Real, float>) forward_decode(call, decoding, q.dtype());
}

template <typename Real>
void backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
              const Tensor& lse, const Tensor& d_out, const AttentionPlan& plan, Tensor& dq,
              Tensor& dk, Tensor& dv) {
  AttentionCall<Real> call = make_call<Real>(q, k, v, plan, out, lse);
  check_rows(d_out, q, "d_out");
  check_rows(dq, q, "dq");
  check_rows(dk, q, "dk");
  check_rows(dv, q, "dv");
  check_shape(d_out, out.shape(), kOp, "d_out");
  check_shape(dq, q.shape(), kOp, "dq");
  check_shape(dk, k.shape(), kOp, "dk");
  check_shape(dv, v.shape(), kOp, "dv");
  call.d_out = HeadRows(d_out);
  call.dq = HeadRows(dq);
  call.dk = HeadRows(dk);
  call.dv = HeadRows(dv);
  std::vector<Interval> keys;
  for (const AttentionSegment& s : plan.segments)
    keys.push_back({s.key_begin, s.key_begin + s.key_length});
  keys = disjoint(std::move(keys), k.size(0), "keys");
  query_ranges(plan, q.size(0), false);
  zero_rows_outside(query_ranges(plan, q.size(0), true), dq);
  zero_rows_outside(keys, dk);
  zero_rows_outside(keys, dv);
  backward_tiles(call);
}

}  // namespace

template <>
const TileOps<float>& tile_ops<float>(DType dtype) {
  if (dtype == DType::kF32) return LH_SIMD_CALL(tile_ops_f32());
#if defined(__x86_64__)
  if (cpu_info().amx_bf16) return tile_ops_amx();
  if (cpu_info().avx512_bf16) return tile_ops_avx512_bf16();
#endif
  return LH_SIMD_CALL(tile_ops_bf16());
}
template <>
const TileOps<double>& tile_ops<double>(DType) {
  return LH_SIMD_CALL(tile_ops_f64());
}

void refresh_plan(const AttentionPlan&) {}  // nothing is kept

void attention_forward(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionPlan& plan,
                       Tensor& out, Tensor& lse) {
  dispatch_float(q.dtype(), kOp,
                 [&]<typename T>() { forward<accumulate_t<T>>(q, k, v, plan, out, lse); });
}

void attention_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                        const Tensor& lse, const Tensor& d_out, const AttentionPlan& plan,
                        Tensor& dq, Tensor& dk, Tensor& dv) {
  dispatch_float(q.dtype(), kOp, [&]<typename T>() {
    backward<accumulate_t<T>>(q, k, v, out, lse, d_out, plan, dq, dk, dv);
  });
}

}  // namespace lh::cpu
