#include "mixers/key_value_cache.h"

#include <algorithm>

#include "backend/elementwise.h"

namespace lh {

KeyValueCache::KeyValueCache(int64_t capacity, int64_t kv_heads, int64_t head_dim, DType dtype,
                             Device device) {
  const MemoryScope scope(MemoryOwner::kCache);
  k_ = Tensor::empty({capacity, kv_heads, head_dim}, dtype, device);
  v_ = Tensor::empty({capacity, kv_heads, head_dim}, dtype, device);
}

void KeyValueCache::append(const Tensor& k, const Tensor& v) {
  const int64_t end = length_ + k.size(0);
  if (end > capacity())
    fail("the key-value cache holds {} tokens and is full; make it larger", capacity());
  Tensor k_rows = k_.slice(0, length_, end), v_rows = v_.slice(0, length_, end);
  LH_DISPATCH(k.device(), "cache", copy(k, k_rows));
  LH_DISPATCH(v.device(), "cache", copy(v, v_rows));
  length_ = end;
}

void KeyValueCache::erase(int64_t begin, int64_t end) {
  // Pieces no longer than the gap never overlap their source.
  const int64_t gap = end - begin;
  for (int64_t from = end; from < length_ && gap > 0; from += gap) {
    const int64_t until = std::min(from + gap, length_);
    for (Tensor* buffer : {&k_, &v_}) {
      Tensor target = buffer->slice(0, from - gap, until - gap);
      LH_DISPATCH(target.device(), "cache", copy(buffer->slice(0, from, until), target));
    }
  }
  length_ -= gap;
}

}  // namespace lh
