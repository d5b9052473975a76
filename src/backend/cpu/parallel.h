// OpenMP loops over fixed blocks. The partition into blocks depends only on the size of the
// problem, so a sum taken block by block is the same for every number of threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/math.h"

namespace lh::cpu {

/// Elements per task of a flat map: long enough to hide the cost of starting it.
inline constexpr int64_t kFlatBlock = 1 << 14;

/// Calls body(block index, begin, end) for [0, count) cut into blocks of `block`. body must not
/// throw. One block runs on the caller.
template <typename F>
void for_each_block(int64_t count, int64_t block, F&& body) {
  const int64_t blocks = ceil_div(count, block);
#pragma omp parallel for schedule(static) if (blocks > 1)
  for (int64_t i = 0; i < blocks; ++i) body(i, i * block, std::min(count, (i + 1) * block));
}

/// Rows per task when each row is `cols` elements.
inline int64_t rows_per_task(int64_t cols) {
  return std::max<int64_t>(1, kFlatBlock / std::max<int64_t>(cols, 1));
}

}  // namespace lh::cpu
