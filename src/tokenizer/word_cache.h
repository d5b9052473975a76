// Remembers the ids of recent words. Fixed size, no allocation after construction: two words that
// fall on the same slot replace each other.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace lh {

/// A 64-bit hash of a short byte string; good low and high bits, not for untrusted tables.
inline uint64_t hash_bytes(std::string_view bytes) {
  constexpr uint64_t kMix = 0x9E3779B97F4A7C15ull;  // 2^64 / golden ratio
  uint64_t hash = bytes.size() * kMix;
  const auto absorb = [&hash](uint64_t word) {
    const unsigned __int128 product = static_cast<unsigned __int128>(hash ^ word) * kMix;
    hash = static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  };
  const char* at = bytes.data();
  size_t left = bytes.size();
  for (; left >= 8; at += 8, left -= 8) {
    uint64_t word;
    std::memcpy(&word, at, 8);
    absorb(word);
  }
  uint64_t word = 0;
  std::memcpy(&word, at, left);
  absorb(word + 1);
  return hash;
}

class WordCache {
 public:
  static constexpr size_t kMaxWordBytes = 30;
  static constexpr size_t kMaxIds = 8;

  WordCache() : slots_(kSlots) {}

  /// The ids of `word`, empty when not held. Precondition: word.size() <= kMaxWordBytes.
  std::span<const int32_t> find(std::string_view word) const {
    const Slot& slot = slots_[index(word)];
    if (slot.word_bytes != word.size() || slot.ids_held == 0 ||
        std::memcmp(slot.word, word.data(), word.size()) != 0)
      return {};
    return {slot.ids, slot.ids_held};
  }

  void put(std::string_view word, std::span<const int32_t> ids) {
    if (ids.empty() || ids.size() > kMaxIds) return;
    Slot& slot = slots_[index(word)];
    slot.word_bytes = static_cast<uint8_t>(word.size());
    slot.ids_held = static_cast<uint8_t>(ids.size());
    std::memcpy(slot.word, word.data(), word.size());
    std::memcpy(slot.ids, ids.data(), ids.size_bytes());
  }

 private:
  static constexpr size_t kSlots = size_t{1} << 15;  // 2 MiB: most words of a text, half an L2
  struct alignas(64) Slot {                          // one cache line
    uint8_t word_bytes = 0;
    uint8_t ids_held = 0;
    char word[kMaxWordBytes] = {};
    int32_t ids[kMaxIds] = {};
  };
  static_assert(sizeof(Slot) == 64);

  static size_t index(std::string_view word) { return hash_bytes(word) >> (64 - 15); }

  std::vector<Slot> slots_;
};

}  // namespace lh
