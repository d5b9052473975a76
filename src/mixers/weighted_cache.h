// What generation keeps of a self-pruning layer whose kept keys weigh as much as their utility: every
// key, as the mask needs each while it is in the window, with the bias it has beyond.
#pragma once

#include "mixers/key_value_cache.h"

namespace lh {

class WeightedCache final : public MixerCache {
 public:
  WeightedCache(int64_t capacity, int64_t kv_heads, int64_t head_dim, DType dtype, Device device);

  /// The biases [n, G] of rows that are appended to past() next.
  void append_bias(const Tensor& bias);
  KeyValueCache& past() { return past_; }
  Tensor bias(int64_t rows) const { return bias_.slice(0, 0, rows); }  // [rows, G], of the first keys
  int64_t bytes() const override { return past_.bytes() + static_cast<int64_t>(bias_.bytes()); }

 private:
  KeyValueCache past_;
  Tensor bias_;  // [capacity, G] f32, f64 for f64
};

}  // namespace lh
