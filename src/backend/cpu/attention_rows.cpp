#include "backend/cpu/attention_rows.h"

#include <algorithm>

#include "backend/cpu/attention_internal.h"
#include "backend/elementwise.h"

namespace lh::cpu {

std::vector<AttentionPlan> disjoint_rounds(const AttentionPlan& plan) {
  std::vector<AttentionPlan> rounds;
  for (const AttentionSegment& segment : plan.segments) {
    if (segment.key_length == 0) continue;
    const auto apart = [&](const AttentionSegment& other) {
      return segment.key_begin + segment.key_length <= other.key_begin ||
             other.key_begin + other.key_length <= segment.key_begin;
    };
    const auto fits = [&](const AttentionPlan& round) {
      return std::all_of(round.segments.begin(), round.segments.end(), apart);
    };
    auto round = std::find_if(rounds.begin(), rounds.end(), fits);
    if (round == rounds.end()) round = rounds.insert(round, {{}, plan.mask, plan.scale});
    round->segments.push_back(segment);
  }
  return rounds;
}

std::vector<RowInterval> query_intervals(const std::vector<AttentionPlan>& rounds) {
  AttentionPlan all;
  for (const AttentionPlan& round : rounds)
    all.segments.insert(all.segments.end(), round.segments.begin(), round.segments.end());
  return query_intervals(all);
}

void zero_rows_outside(const std::vector<RowInterval>& ranges, Tensor& t) {
  if (t.device().is_meta()) return;
  const HeadRows rows(t);
  const auto bytes = static_cast<size_t>(t.size(1) * rows.d * rows.element_bytes);
  for_rows_outside(ranges, t.size(0), [&](int64_t row) { std::fill_n(rows.at(row, 0), bytes, 0); });
}

void sum_over_rounds(const std::vector<AttentionPlan>& rounds, Tensor& dk, Tensor& dv,
                     const RoundGradients& run) {
  const bool computes = !dk.device().is_meta();
  Tensor dk_sum = Tensor::zeros(dk.shape(), sum_dtype(dk.dtype()), dk.device());
  Tensor dv_sum = Tensor::zeros(dv.shape(), sum_dtype(dv.dtype()), dv.device());
  for (const AttentionPlan& round : rounds) {
    Tensor dk_part = Tensor::empty_like(dk), dv_part = Tensor::empty_like(dv);
    run(round, dk_part, dv_part);
    for (const auto& [part, sum] : {std::pair{&dk_part, &dk_sum}, std::pair{&dv_part, &dv_sum}}) {
      Tensor wide = Tensor::empty_like(*sum);
      if (!computes) continue;
      copy(*part, wide);
      add_scaled(*sum, 1, wide, 1, *sum);
    }
  }
  if (!computes) return;
  copy(dk_sum, dk);
  copy(dv_sum, dv);
}

}  // namespace lh::cpu
