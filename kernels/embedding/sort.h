// Stable sort of token positions by token id, for sums that must not depend on chance.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

/// order [n]: positions sorted by id, equal ids in ascending order of position; keys [n]: their ids.
/// Ids outside [0, vocab) count as vocab and so come last.
struct SortParams {
  const std::int32_t* ids = nullptr;  // [n]
  std::int32_t* order = nullptr;
  std::int32_t* keys = nullptr;
  std::int32_t* workspace = nullptr;  // sort_workspace(n) elements
  int n = 0, vocab = 0;
};

void sort_by_id(const SortParams& p, xpu::Stream stream);
std::size_t sort_workspace(int n);

}  // namespace lh::kernels
