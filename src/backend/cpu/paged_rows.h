// Where the keys of a paged cache lie in its pool.
#pragma once

#include <algorithm>
#include <cstdint>

#include "backend/paged_attention.h"
#include "base/error.h"

namespace lh::cpu {

class PagedRows {
 public:
  explicit PagedRows(const PagedKeys& keys)
      : table_(keys.table.data<int32_t>()),
        width_(keys.table.size(1)),
        page_rows_(keys.k.size(1)),
        pages_(keys.k.size(0)) {}

  /// Throws unless the table names a page of the pool for key j of a sequence.
  void check(int64_t sequence, int64_t j) const {
    const int64_t index = j / page_rows_;
    const int64_t page = index < width_ ? table_[sequence * width_ + index] : -1;
    LH_CHECK(page >= 0 && page < pages_,
             "[paged keys] key {} of sequence {} has no page: the table has {} per sequence, the "
             "pool {}",
             j, sequence, width_, pages_);
  }

  /// Row of the pool that holds key j of a sequence, which has a page.
  int64_t row(int64_t sequence, int64_t j) const {
    return table_[sequence * width_ + j / page_rows_] * page_rows_ + j % page_rows_;
  }

  /// Calls f(row, count) for the runs of rows that hold keys [begin, end); pages that follow one another
  /// make one run.
  template <typename F>
  void for_each_run(int64_t sequence, int64_t begin, int64_t end, F&& f) const {
    while (begin < end) {
      const int64_t first = row(sequence, begin);
      int64_t next = std::min(end, (begin / page_rows_ + 1) * page_rows_);
      while (next < end && row(sequence, next) == first + next - begin)
        next = std::min(end, next + page_rows_);
      f(first, next - begin);
      begin = next;
    }
  }

 private:
  const int32_t* table_;
  int64_t width_, page_rows_, pages_;
};

}  // namespace lh::cpu
