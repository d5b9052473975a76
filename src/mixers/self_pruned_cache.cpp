#include "mixers/self_pruned_cache.h"

#include <algorithm>

#include "backend/elementwise.h"
#include "backend/embedding.h"
#include "base/math.h"

namespace lh {
namespace {

constexpr int64_t kPageRows = 16;  // the least a decoding kernel takes
/// Tokens between two looks at the counts, and so the rows that a head may have and not use.
constexpr int64_t kStep = 64;

std::vector<int64_t> on_host(const Tensor& counts) {
  const Tensor host = counts.to(kCpuDevice);
  return {host.data<int32_t>(), host.data<int32_t>() + host.numel()};
}

}  // namespace

SelfPrunedCache::SelfPrunedCache(int64_t window, int64_t max_tokens, int64_t kv_heads,
                                 int64_t head_dim, DType dtype, Device device)
    : window_(std::min(window, max_tokens)), max_tokens_(max_tokens) {
  const MemoryScope scope(MemoryOwner::kCache);
  // The table is as wide as it can ever be, so that it stays where it is: a recorded step stays right
  // until the pool moves.
  const int64_t most_pages = ceil_div(max_tokens, kPageRows);
  cache_.keys.k = Tensor::empty({0, kPageRows, head_dim}, dtype, device);
  cache_.keys.v = Tensor::empty({0, kPageRows, head_dim}, dtype, device);
  cache_.keys.table = Tensor::empty({kv_heads, most_pages}, DType::kI32, device);
  cache_.keys.lengths = Tensor::zeros({kv_heads}, DType::kI32, device);
  cache_.keys.capacities.assign(static_cast<size_t>(kv_heads), 0);
  cache_.seen = Tensor::zeros({kv_heads}, DType::kI32, device);
  cache_.bits = Tensor::zeros({kv_heads, window_}, DType::kU8, device);
  table_.assign(static_cast<size_t>(kv_heads * most_pages), -1);
  reserve(std::vector<int64_t>(static_cast<size_t>(kv_heads), window_));
  safe_tokens_ = window_;
}

void SelfPrunedCache::reserve(const std::vector<int64_t>& rows) {
  const MemoryScope scope(MemoryOwner::kCache);
  const auto most_pages = static_cast<size_t>(cache_.keys.table.size(1));
  int64_t wanted = used_pages_;
  for (size_t g = 0; g < rows.size(); ++g) {
    int64_t& capacity = cache_.keys.capacities[g];
    for (; capacity < rows[g]; capacity += kPageRows)
      table_[g * most_pages + static_cast<size_t>(capacity / kPageRows)] =
          static_cast<int32_t>(wanted++);
  }
  if (wanted == used_pages_) return;
  cache_.keys.table.copy_bytes_from(Tensor::from(table_, cache_.keys.table.shape()));
  const int64_t pool = cache_.keys.k.size(0);
  if (wanted > pool) {
    // An eighth more at least: what is copied over all tokens stays linear in them.
    for (Tensor* t : {&cache_.keys.k, &cache_.keys.v}) {
      Tensor larger = Tensor::empty({std::max(wanted, pool + pool / 8), kPageRows, t->size(2)},
                                    t->dtype(), t->device());
      Tensor old = larger.slice(0, 0, used_pages_);
      if (used_pages_ > 0)
        LH_DISPATCH(old.device(), "cache", copy(t->slice(0, 0, used_pages_), old));
      *t = larger;
    }
  }
  used_pages_ = wanted;
}

void SelfPrunedCache::make_room(int64_t count, const Tensor& gates) {
  if (count <= safe_tokens_) {
    safe_tokens_ -= count;
    return;
  }
  // Tokens that enter the ring or leave it for certain count as one key each, those of a long run that
  // leave it again by their gates.
  std::vector<int64_t> rows = row_counts(), room;
  const int64_t end = length_ + count, passing = std::max<int64_t>(0, count - window_);
  const int64_t entering = std::min(end, window_) - std::min(length_, window_);
  const int64_t leaving = std::min(length_, std::max<int64_t>(0, end - window_)) -
                          std::max<int64_t>(0, length_ - window_);
  for (int64_t& length : rows) length += entering + leaving;
  if (passing > 0) {
    const Tensor host = gates.slice(0, 0, passing).to(kCpuDevice);
    dispatch_float(host.dtype(), "cache", [&]<typename T>() {
      for (int64_t i = 0; i < host.numel(); ++i)
        rows[static_cast<size_t>(i) % rows.size()] +=
            static_cast<accumulate_t<T>>(host.data<T>()[i]) == 0 ? 1 : 0;
    });
  }
  for (const int64_t length : rows) room.push_back(std::min(length + kStep, max_tokens_));
  reserve(room);
  safe_tokens_ = std::numeric_limits<int64_t>::max();
  for (size_t g = 0; g < rows.size(); ++g)
    if (cache_.keys.capacities[g] < max_tokens_)
      safe_tokens_ = std::min(safe_tokens_, cache_.keys.capacities[g] - rows[g]);
}

void SelfPrunedCache::append(const Tensor& k, const Tensor& v, const Tensor& gates) {
  const int64_t count = k.size(0);
  if (length_ + count > max_tokens_)
    fail("the key-value cache holds {} tokens, {} of them are taken and {} are given; make it larger",
         max_tokens_, length_, count);
  make_room(count, gates);
  LH_DISPATCH(k.device(), "cache", gated_append(k, v, gates, cache_));
  length_ += count;
}

Tensor SelfPrunedCache::attend(const Tensor& q, double scale) const {
  const int64_t kv_heads = cache_.seen.size(0), group = q.size(1) / kv_heads;
  const Tensor queries = q.reshape({kv_heads, group, q.size(2)});
  Tensor out = Tensor::empty_like(queries);
  Tensor lse = Tensor::empty({kv_heads, group},
                             q.dtype() == DType::kF64 ? DType::kF64 : DType::kF32, q.device());
  LH_DISPATCH(q.device(), "cache", paged_attention(queries, cache_.keys, scale, out, lse));
  return out.reshape(q.shape());
}

std::vector<SelfPrunedCache::OrderedHead> SelfPrunedCache::ordered() const {
  const std::vector<int64_t> rows = row_counts();
  const Tensor bits = cache_.bits.to(kCpuDevice);
  const int64_t ring = std::min(length_, window_), heads = cache_.seen.size(0);
  std::vector<OrderedHead> result(rows.size());
  std::vector<int32_t> ids;  // rows of the pool
  for (int64_t g = 0; g < heads; ++g) {
    const auto add = [&](int64_t key) {
      const int64_t at = g * cache_.keys.table.size(1) + key / kPageRows;
      ids.push_back(table_[static_cast<size_t>(at)] * static_cast<int32_t>(kPageRows) +
                    static_cast<int32_t>(key % kPageRows));
    };
    for (int64_t key = ring; key < rows[static_cast<size_t>(g)]; ++key) add(key);
    for (int64_t token = length_ - ring; token < length_; ++token) {
      add(token % window_);
      result[static_cast<size_t>(g)].kept.push_back(
          bits.data<uint8_t>()[g * window_ + token % window_]);
    }
  }
  const Tensor index =
      Tensor::from(ids, {static_cast<int64_t>(ids.size())}).to(cache_.keys.k.device());
  for (const auto& [pool, part] : {std::pair{&cache_.keys.k, &OrderedHead::k},
                                   std::pair{&cache_.keys.v, &OrderedHead::v}}) {
    const int64_t d = pool->size(2);
    Tensor all = Tensor::empty({index.size(0), d}, pool->dtype(), pool->device());
    LH_DISPATCH(all.device(), "cache",
                embedding_forward(pool->reshape({-1, d}), index, 1, all));
    int64_t first = 0;
    for (size_t g = 0; g < rows.size(); first += rows[g++])
      result[g].*part = all.slice(0, first, first + rows[g]).reshape({-1, 1, d});
  }
  return result;
}

std::vector<int64_t> SelfPrunedCache::row_counts() const { return on_host(cache_.keys.lengths); }

int64_t SelfPrunedCache::bytes() const {
  const PagedKeys& keys = cache_.keys;
  size_t total = 0;
  for (const Tensor* t :
       {&keys.k, &keys.v, &keys.table, &keys.lengths, &cache_.seen, &cache_.bits})
    total += t->bytes();
  return static_cast<int64_t>(total);
}

KeptKeys SelfPrunedCache::kept_keys() const {
  KeptKeys result{.bytes = bytes()};
  for (const int64_t rows : row_counts()) {
    result.kept += rows;
    result.all += length_;
  }
  const PagedKeys& keys = cache_.keys;
  result.dense_bytes = result.all * (keys.k.size(2) + keys.v.size(2)) *
                       static_cast<int64_t>(dtype_size(keys.k.dtype()));
  return result;
}

}  // namespace lh
