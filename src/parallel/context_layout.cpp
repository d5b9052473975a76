#include "parallel/context_layout.h"

#include <algorithm>

namespace lh {
namespace {

bool same(const AttentionPlan& plan, const AttentionMask& mask, double scale) {
  return plan.mask == mask && plan.scale == scale;
}

}  // namespace

/// Calls function(document, rows) for each document's rows in each range of `held`, in order.
template <typename F>
void ContextLayout::for_each_part(const RowSet& held, F&& function) const {
  for (const RowRange& range : held) {
    auto end = std::upper_bound(offsets_.begin(), offsets_.end(), range.begin);
    for (; end != offsets_.end() && end[-1] < range.end; ++end)
      function(RowRange{end[-1], end[0]},
               RowRange{std::max(range.begin, end[-1]), std::min(range.end, end[0])});
  }
}

ContextLayout::ContextLayout(std::span<const int64_t> offsets, ContextOrder order,
                             Communicator& group)
    : offsets_(offsets.begin(), offsets.end()),
      group_(&group),
      held_(shard_rows(offsets_.back(), group.size(), order)) {
  int64_t row = 0;
  for_each_part(held(), [&](const RowRange& document, const RowRange& part) {
    local_.push_back({row, part.count(), row, part.count(), part.begin - document.begin});
    row += part.count();
  });
  for (size_t s = 0; s + 1 < offsets_.size(); ++s) {
    const int64_t begin = offsets_[s], length = offsets_[s + 1] - begin;
    whole_.push_back({begin, length, begin, length, 0});
  }
}

RowSet ContextLayout::needed(const RowSet& held, const AttentionMask& mask) const {
  std::vector<RowRange> rows;
  for_each_part(held, [&](const RowRange& document, const RowRange& part) {
    const int64_t first =
        mask.window == 0 ? document.begin : std::max(document.begin, part.begin - mask.window + 1);
    rows.push_back({first, part.end});
    if (mask.window > 0)
      rows.push_back({document.begin, std::min(document.begin + mask.sinks, part.end)});
  });
  return unite(std::move(rows));
}

std::shared_ptr<const RowExchange> ContextLayout::exchange(const AttentionMask& mask) const {
  std::vector<RowSet> wanted;
  for (const RowSet& held : held_) wanted.push_back(needed(held, mask));
  return std::make_shared<const RowExchange>(held_, wanted, group_->rank());
}

const GatheredAttention& ContextLayout::gathered(const AttentionMask& mask, double scale) const {
  for (const auto& known : gathered_)
    if (same(*known->plan, mask, scale)) return *known;
  AttentionPlan plan;
  plan.mask = mask;
  plan.scale = scale;
  const RowSet rows = needed(held(), mask);
  int64_t query = 0;
  for_each_part(held(), [&](const RowRange& document, const RowRange& part) {
    // Rows that were left out lie beyond the window of every query here, so the mask over the rows
    // that came is the mask over positions: a key inside the window keeps its distance, one
    // outside stays at a window's distance or more, and sinks stay the first.
    const RowSet keys = intersect(rows, {{document.begin, part.end}});
    const int64_t first_key = index_of(rows, keys.front().begin);
    plan.segments.push_back({query, part.count(), first_key, row_count(keys),
                             index_of(rows, part.begin) - first_key});
    query += part.count();
  });
  gathered_.push_back(std::make_unique<GatheredAttention>(
      GatheredAttention{exchange(mask), std::make_shared<const AttentionPlan>(std::move(plan))}));
  return *gathered_.back();
}

std::shared_ptr<const AttentionPlan> ContextLayout::whole(const AttentionMask& mask,
                                                          double scale) const {
  for (const auto& plan : wholes_)
    if (same(*plan, mask, scale)) return plan;
  wholes_.push_back(std::make_shared<const AttentionPlan>(AttentionPlan{whole_, mask, scale}));
  return wholes_.back();
}

int64_t ContextLayout::gathered_rows(const AttentionMask& mask) const {
  int64_t rows = 0;
  for (const RowSet& held : held_) rows += row_count(needed(held, mask)) - row_count(held);
  return rows;
}

std::shared_ptr<const RowExchange> ContextLayout::halo(int64_t rows) const {
  return exchange({.window = rows + 1, .sinks = 0});
}

}  // namespace lh
