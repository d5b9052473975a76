// Which parts of an address range are free: best fit, and free neighbours merge. Touches no memory,
// so it serves host and device ranges alike.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <utility>

namespace lh {

class BestFit {
 public:
  /// Offset of `bytes` that were free: the smallest fitting block, the lowest among equals.
  std::optional<size_t> allocate(size_t bytes);
  /// Gives back an allocated block, or adds new addresses to the range.
  void release(size_t offset, size_t bytes);

 private:
  void insert(size_t offset, size_t size);
  void erase(size_t offset, size_t size);

  std::map<size_t, size_t> by_offset_;           // free blocks: offset -> size
  std::set<std::pair<size_t, size_t>> by_size_;  // the same: (size, offset)
};

}  // namespace lh
