#include "runtime/best_fit.h"

#include <iterator>

namespace lh {

std::optional<size_t> BestFit::allocate(size_t bytes) {
  const auto fit = by_size_.lower_bound({bytes, 0});
  if (fit == by_size_.end()) return std::nullopt;
  const auto [size, offset] = *fit;
  erase(offset, size);
  if (size > bytes) insert(offset + bytes, size - bytes);
  return offset;
}

void BestFit::release(size_t offset, size_t bytes) {
  auto next = by_offset_.lower_bound(offset);
  if (next != by_offset_.end() && next->first == offset + bytes) {
    const auto [next_offset, next_size] = *next++;
    bytes += next_size;
    erase(next_offset, next_size);
  }
  if (next != by_offset_.begin()) {
    const auto [prev_offset, prev_size] = *std::prev(next);
    if (prev_offset + prev_size == offset) {
      erase(prev_offset, prev_size);
      offset = prev_offset;
      bytes += prev_size;
    }
  }
  insert(offset, bytes);
}

void BestFit::insert(size_t offset, size_t size) {
  by_offset_.emplace(offset, size);
  by_size_.emplace(size, offset);
}

void BestFit::erase(size_t offset, size_t size) {
  by_offset_.erase(offset);
  by_size_.erase({size, offset});
}

}  // namespace lh
