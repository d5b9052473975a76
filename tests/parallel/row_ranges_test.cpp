// Sets of rows against sets of numbers.
#include "parallel/row_ranges.h"

#include <doctest/doctest.h>

#include <random>
#include <set>

using namespace lh;

namespace {

std::set<int64_t> numbers(const RowSet& rows) {
  std::set<int64_t> all;
  for (const RowRange& range : rows)
    for (int64_t i = range.begin; i < range.end; ++i) CHECK(all.insert(i).second);
  return all;
}

std::vector<RowRange> random_ranges(std::mt19937& random) {
  std::vector<RowRange> ranges;
  for (size_t i = 0; i < random() % 6; ++i) {
    const auto begin = static_cast<int64_t>(random() % 40);
    ranges.push_back({begin, begin + static_cast<int64_t>(random() % 9)});
  }
  return ranges;
}

}  // namespace

TEST_CASE("unions, intersections and places of rows are those of sets") {
  std::mt19937 random(1);
  for (int round = 0; round < 500; ++round) {
    std::set<int64_t> members;
    const auto ranges = random_ranges(random);
    for (const RowRange& range : ranges)
      for (int64_t i = range.begin; i < range.end; ++i) members.insert(i);
    const RowSet a = unite(ranges), b = unite(random_ranges(random));
    CHECK(numbers(a) == members);
    CHECK(row_count(a) == static_cast<int64_t>(members.size()));
    std::set<int64_t> common;
    for (const int64_t i : numbers(a))
      if (numbers(b).count(i) > 0) common.insert(i);
    CHECK(numbers(intersect(a, b)) == common);
    int64_t place = 0;
    for (const int64_t i : members) CHECK(index_of(a, i) == place++);
  }
  CHECK_THROWS(index_of({{3, 5}}, 5));
}

TEST_CASE("every row is held by one process, and all hold about the same") {
  for (const ContextOrder order : {ContextOrder::kContiguous, ContextOrder::kZigzag})
    for (const int ranks : {1, 2, 3, 4, 7})
      for (const int64_t rows : {0, 1, 2, 5, 13, 64, 101}) {
        CAPTURE(ranks);
        CAPTURE(rows);
        std::multiset<int64_t> all;
        for (const RowSet& held : shard_rows(rows, ranks, order)) {
          const auto mine = numbers(held);
          all.insert(mine.begin(), mine.end());
          CHECK(row_count(held) <= rows / ranks + 2);
        }
        CHECK(static_cast<int64_t>(all.size()) == rows);
        CHECK(std::set<int64_t>(all.begin(), all.end()).size() == all.size());
      }
}

TEST_CASE("zigzag gives every process the same number of causal pairs") {
  const auto held = shard_rows(64, 4, ContextOrder::kZigzag);
  for (const RowSet& rows : held) {
    int64_t pairs = 0;
    for (const int64_t row : numbers(rows)) pairs += row + 1;
    CHECK(pairs == 64 * 65 / 2 / 4);
  }
}
