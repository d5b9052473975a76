// Sets of rows as sorted, disjoint ranges, and how the rows of a step are cut over the processes of a
// context-parallel group. Pure functions: every process computes the same.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lh {

/// Rows [begin, end).
struct RowRange {
  int64_t begin = 0, end = 0;

  int64_t count() const { return end - begin; }
  bool operator==(const RowRange&) const = default;
};

/// Sorted by begin, disjoint, none empty; ranges that touch may stay apart.
using RowSet = std::vector<RowRange>;

int64_t row_count(const RowSet& rows);

/// The union of arbitrary ranges, with ranges that touch joined.
RowSet unite(std::vector<RowRange> ranges);

/// The common rows, cut wherever a range of either begins or ends.
RowSet intersect(const RowSet& a, const RowSet& b);

/// Place of `row` in the list of all rows of the set; the row must be in it.
int64_t index_of(const RowSet& rows, int64_t row);

/// Which rows a process holds.
enum class ContextOrder : uint8_t {
  kContiguous,  // process r: piece r of n
  kZigzag,      // process r: pieces r and 2n - 1 - r of 2n, so that causal work is equal
};

/// Rows [0, rows) over `ranks` processes. Pieces differ by one row at most, so any number of rows
/// works; a process may end with none.
std::vector<RowSet> shard_rows(int64_t rows, int ranks, ContextOrder order);

}  // namespace lh
