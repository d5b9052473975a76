#include "data/permutation.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "base/philox.h"

namespace lh {

namespace {
// Keeps shuffling apart from other uses of Philox with the same seed: bytes of "shuffle".
constexpr uint64_t kDomain = 0x656C6666756873ull;
// Eight rounds: four make a pseudorandom permutation for large halves, small ones need more.
constexpr uint32_t kRounds = 8;
// Walking from at least 64 values keeps the halves wide enough to mix when size is tiny.
constexpr int kMinBits = 6;
}  // namespace

Permutation::Permutation(uint64_t size, uint64_t seed, uint64_t stream)
    : size_(size), key_(seed ^ kDomain), stream_(stream) {
  LH_CHECK(size >= 1 && size <= uint64_t{1} << 62, "[shuffle] {} elements", size);
  const int bits = std::max(kMinBits, static_cast<int>(std::bit_width(size - 1)));
  low_bits_ = bits / 2;
  high_bits_ = bits - low_bits_;
}

uint64_t Permutation::operator()(uint64_t index) const {
  LH_CHECK(index < size_, "[shuffle] place {} of {}", index, size_);
  do index = encrypt(index);
  while (index >= size_);
  return index;
}

uint64_t Permutation::encrypt(uint64_t value) const {
  // Halves of unequal width swap widths each round; an even number of rounds restores them.
  int low_bits = low_bits_, high_bits = high_bits_;
  uint64_t low = value & ((uint64_t{1} << low_bits) - 1);
  uint64_t high = value >> low_bits;
  for (uint32_t round = 0; round < kRounds; ++round) {
    const PhiloxBlock block =
        philox4x32({static_cast<uint32_t>(low), round, static_cast<uint32_t>(stream_),
                    static_cast<uint32_t>(stream_ >> 32)},
                   key_);
    const uint64_t mixed = (high ^ block[0]) & ((uint64_t{1} << high_bits) - 1);
    high = low;
    low = mixed;
    std::swap(low_bits, high_bits);
  }
  return high << low_bits | low;
}

}  // namespace lh
