// Work of equal size cut from a list of tensors, so that one launch serves all of them and a small
// tensor costs one block. For the .cu files of optim and reduce.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

constexpr int kChunkThreads = 256;
/// 64 elements for each thread: enough loads in flight, and 36,000 blocks for 0.6B parameters.
constexpr std::int64_t kChunkElements = 16384;

inline std::int64_t chunks_of(std::int64_t elements) {
  return xpu::ceil_div(elements, kChunkElements);
}

/// The entry that owns a chunk: entries are in ascending order of first_chunk, which starts at 0, and
/// own at least one chunk each. Eight or nine steps for the tensors of a model, all in L1.
template <class Entry>
XPU_HD int entry_of_chunk(const Entry* entries, int count, std::int64_t chunk) {
  int low = 0, high = count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (entries[middle].first_chunk <= chunk) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace lh::kernels
