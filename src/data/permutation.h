// A keyed permutation of 0..size-1 in O(1) memory: a Feistel network with Philox as its round
// function over the next power of two, walking each cycle until it is back inside the range
// (Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains", methods 2 and 3).
#pragma once

#include <cstdint>

namespace lh {

class Permutation {
 public:
  /// `size` in 1..2^62. Different (seed, stream) give independent orders.
  Permutation(uint64_t size, uint64_t seed, uint64_t stream);

  /// The element at place `index` < size. About 2 to 4 walks of 8 Philox calls at worst, 1 to 2
  /// on average.
  uint64_t operator()(uint64_t index) const;

  uint64_t size() const { return size_; }

 private:
  uint64_t encrypt(uint64_t value) const;

  uint64_t size_;
  uint64_t key_;
  uint64_t stream_;
  int low_bits_;
  int high_bits_;
};

}  // namespace lh
