// Checks of attention that every device makes before it touches memory.
#pragma once

#include "backend/attention.h"
#include "backend/operands.h"

namespace lh {

/// ShapeError with `op` and both facts when tensors do not fit each other (backend/attention.h), or the plan's
/// segments leave them or share queries.
void check_attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionPlan& plan,
                     const Tensor& out, const Tensor& lse, std::string_view op);

/// Rows [begin, end).
struct RowInterval {
  int64_t begin, end;
};

/// Sorted by begin, without the empty ones.
std::vector<RowInterval> query_intervals(const AttentionPlan& plan);
std::vector<RowInterval> key_intervals(const AttentionPlan& plan);

/// Every row of [0, rows) lies in one of the sorted intervals.
bool cover(const std::vector<RowInterval>& intervals, int64_t rows);

}  // namespace lh
