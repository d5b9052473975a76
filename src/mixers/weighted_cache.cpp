#include "mixers/weighted_cache.h"

#include "backend/elementwise.h"

namespace lh {

WeightedCache::WeightedCache(int64_t capacity, int64_t kv_heads, int64_t head_dim, DType dtype,
                             Device device)
    : past_(capacity, kv_heads, head_dim, dtype, device) {
  const MemoryScope scope(MemoryOwner::kCache);
  bias_ = Tensor::empty({capacity, kv_heads}, dtype == DType::kF64 ? DType::kF64 : DType::kF32, device);
}

void WeightedCache::append_bias(const Tensor& bias) {
  const int64_t begin = past_.length(), end = begin + bias.size(0);
  if (end > past_.capacity())
    fail("the key-value cache holds {} tokens and is full; make it larger", past_.capacity());
  Tensor rows = bias_.slice(0, begin, end);
  LH_DISPATCH(bias.device(), "cache", copy(bias, rows));
}

}  // namespace lh
