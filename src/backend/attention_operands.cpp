#include "backend/attention_operands.h"

#include <algorithm>

namespace lh {
namespace {

std::vector<RowInterval> sorted(std::vector<RowInterval> intervals) {
  std::erase_if(intervals, [](const RowInterval& i) { return i.begin == i.end; });
  std::sort(intervals.begin(), intervals.end(),
            [](const RowInterval& a, const RowInterval& b) { return a.begin < b.begin; });
  return intervals;
}

/// [rows, heads, d] of the dtype of q, heads and channels contiguous.
void check_rows(const Tensor& t, const Tensor& q, std::string_view op, std::string_view name) {
  check_rank(t, 3, op, name);
  check_dtype(t, q.dtype(), op, name);
  const bool heads_ok = t.size(1) == 1 || t.strides()[1] == t.size(2);
  if (!heads_ok || (t.size(2) > 1 && t.strides()[2] != 1))
    fail<ShapeError>("[{}] {}: expected contiguous heads and channels, got {} with strides {}", op,
                     name, t.str(), t.strides().str());
}

void check_segments(const AttentionPlan& plan, int64_t query_rows, int64_t key_rows,
                    std::string_view op) {
  for (const AttentionSegment& s : plan.segments) {
    if (s.key_length < 0 || s.key_begin < 0 || s.key_begin + s.key_length > key_rows)
      fail<ShapeError>("[{}] keys of a segment: expected a range within {} rows, got [{}, {})", op,
                       key_rows, s.key_begin, s.key_begin + s.key_length);
    if (s.query_length < 0 || s.query_begin < 0 || s.query_begin + s.query_length > query_rows)
      fail<ShapeError>("[{}] queries of a segment: expected a range within {} rows, got [{}, {})",
                       op, query_rows, s.query_begin, s.query_begin + s.query_length);
  }
  int64_t at = 0;
  for (const RowInterval& i : query_intervals(plan)) {
    if (i.begin < at)
      fail<ShapeError>("[{}] queries of segments: expected disjoint ranges, got [{}, {}) after one "
                       "that ends at {}",
                       op, i.begin, i.end, at);
    at = i.end;
  }
}

}  // namespace

std::vector<RowInterval> query_intervals(const AttentionPlan& plan) {
  std::vector<RowInterval> intervals;
  for (const AttentionSegment& s : plan.segments)
    intervals.push_back({s.query_begin, s.query_begin + s.query_length});
  return sorted(std::move(intervals));
}

std::vector<RowInterval> key_intervals(const AttentionPlan& plan) {
  std::vector<RowInterval> intervals;
  for (const AttentionSegment& s : plan.segments)
    intervals.push_back({s.key_begin, s.key_begin + s.key_length});
  return sorted(std::move(intervals));
}

bool cover(const std::vector<RowInterval>& intervals, int64_t rows) {
  int64_t covered = 0;
  for (const RowInterval& i : intervals) {
    if (i.begin > covered) return false;
    covered = std::max(covered, i.end);
  }
  return covered >= rows;
}

void check_attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionPlan& plan,
                     const Tensor& out, const Tensor& lse, std::string_view op) {
  check_rows(q, q, op, "q");
  check_rows(k, q, op, "k");
  check_rows(v, q, op, "v");
  check_rows(out, q, op, "out");
  if (k.size(1) == 0 || q.size(1) % k.size(1) != 0)
    fail<ShapeError>("[{}] expected a multiple of {} key-value heads, got {} query heads", op,
                     k.size(1), q.size(1));
  check_shape(k, {k.size(0), k.size(1), q.size(2)}, op, "k");
  check_shape(v, {k.size(0), k.size(1), v.size(2)}, op, "v");
  check_shape(out, {q.size(0), q.size(1), v.size(2)}, op, "out");
  check_sum(lse, {q.size(0), q.size(1)}, q.dtype(), op, "lse");
  if (!(plan.scale > 0) || plan.mask.window < 0 || plan.mask.sinks < 0)
    fail<ShapeError>("[{}] expected scale > 0, window >= 0 and sinks >= 0, got {}, {} and {}", op,
                     plan.scale, plan.mask.window, plan.mask.sinks);
  check_segments(plan, q.size(0), k.size(0), op);
}

}  // namespace lh
