// Rows that a plan does not reach, and plans whose segments share keys.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "backend/attention.h"
#include "backend/attention_operands.h"

namespace lh::cpu {

/// The plan's segments that have keys, in rounds whose segments share none, in their order.
std::vector<AttentionPlan> disjoint_rounds(const AttentionPlan& plan);

/// Queries of all rounds.
std::vector<RowInterval> query_intervals(const std::vector<AttentionPlan>& rounds);

/// Calls fill(row) for each row outside the ranges.
template <typename F>
void for_rows_outside(const std::vector<RowInterval>& ranges, int64_t rows, F&& fill) {
  int64_t row = 0;
  for (const RowInterval& range : ranges) {
    for (; row < range.begin; ++row) fill(row);
    row = range.end;
  }
  for (; row < rows; ++row) fill(row);
}

/// t [rows, heads, d].
void zero_rows_outside(const std::vector<RowInterval>& ranges, Tensor& t);

/// Keys that several segments see (context parallelism): a task writes its keys, so run(round, dk,
/// dv) gives gradients of its own to each round, which are added in f32 (f64).
using RoundGradients = std::function<void(const AttentionPlan&, Tensor& dk, Tensor& dv)>;
void sum_over_rounds(const std::vector<AttentionPlan>& rounds, Tensor& dk, Tensor& dv,
                     const RoundGradients& run);

}  // namespace lh::cpu
