// Rows of rotated keys and values that a decoding layer keeps, in order of position.
#pragma once

#include "mixers/mixer.h"

namespace lh {

class KeyValueCache final : public MixerCache {
 public:
  KeyValueCache(int64_t capacity, int64_t kv_heads, int64_t head_dim, DType dtype, Device device);

  /// Appends rows k, v [n, G, d]; throws when the capacity is exceeded.
  void append(const Tensor& k, const Tensor& v);
  /// Forgets rows [begin, end): later rows move down. Order is kept.
  void erase(int64_t begin, int64_t end);

  Tensor keys() const { return k_.slice(0, 0, length_); }
  Tensor values() const { return v_.slice(0, 0, length_); }
  int64_t length() const { return length_; }
  int64_t capacity() const { return k_.size(0); }
  int64_t bytes() const override { return static_cast<int64_t>(k_.bytes() + v_.bytes()); }

 private:
  Tensor k_, v_;  // [capacity, G, d]
  int64_t length_ = 0;
};

}  // namespace lh
