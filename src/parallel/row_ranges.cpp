#include "parallel/row_ranges.h"

#include <algorithm>

#include "base/error.h"

namespace lh {

int64_t row_count(const RowSet& rows) {
  int64_t count = 0;
  for (const RowRange& range : rows) count += range.count();
  return count;
}

RowSet unite(std::vector<RowRange> ranges) {
  std::erase_if(ranges, [](const RowRange& range) { return range.count() <= 0; });
  std::sort(ranges.begin(), ranges.end(),
            [](const RowRange& a, const RowRange& b) { return a.begin < b.begin; });
  RowSet result;
  for (const RowRange& range : ranges) {
    if (!result.empty() && range.begin <= result.back().end)
      result.back().end = std::max(result.back().end, range.end);
    else
      result.push_back(range);
  }
  return result;
}

RowSet intersect(const RowSet& a, const RowSet& b) {
  RowSet result;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const RowRange common{std::max(a[i].begin, b[j].begin), std::min(a[i].end, b[j].end)};
    if (common.count() > 0) result.push_back(common);
    if (a[i].end < b[j].end) ++i;
    else ++j;
  }
  return result;
}

int64_t index_of(const RowSet& rows, int64_t row) {
  int64_t before = 0;
  for (const RowRange& range : rows) {
    if (row >= range.begin && row < range.end) return before + row - range.begin;
    before += range.count();
  }
  fail("[rows] row {} is not in the set", row);
}

std::vector<RowSet> shard_rows(int64_t rows, int ranks, ContextOrder order) {
  LH_CHECK(rows >= 0 && ranks >= 1, "[rows] cannot cut {} rows over {} processes", rows, ranks);
  const int64_t pieces = order == ContextOrder::kZigzag ? 2 * ranks : ranks;
  const auto piece = [&](int64_t i) {
    return RowRange{rows * i / pieces, rows * (i + 1) / pieces};
  };
  std::vector<RowSet> result;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    std::vector<RowRange> held{piece(rank)};
    if (order == ContextOrder::kZigzag) held.push_back(piece(pieces - 1 - rank));
    result.push_back(unite(std::move(held)));
  }
  return result;
}

}  // namespace lh
