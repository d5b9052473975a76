#include "mixers/self_pruned_cache.h"

#include <algorithm>

#include "backend/elementwise.h"
#include "base/math.h"

namespace lh {
namespace {

constexpr int64_t kPage = 16;  // rows by which a head's range grows at least

void copy_rows_of(const Tensor& from, Tensor to) {
  LH_DISPATCH(to.device(), "cache", copy(from, to));
}

}  // namespace

SelfPrunedCache::SelfPrunedCache(int64_t window, int64_t max_tokens, int64_t kv_heads,
                                 int64_t head_dim, DType dtype, Device device)
    : window_(window), max_tokens_(max_tokens) {
  const MemoryScope scope(MemoryOwner::kCache);
  k_ = Tensor::empty({kv_heads * window, 1, head_dim}, dtype, device);
  v_ = Tensor::empty({kv_heads * window, 1, head_dim}, dtype, device);
  for (int64_t g = 0; g < kv_heads; ++g)
    heads_.push_back(
        {g * window, window, 0, std::vector<uint8_t>(static_cast<size_t>(window), 0)});
}

void SelfPrunedCache::reserve(std::span<const int64_t> stored) {
  bool fits = true;
  for (size_t g = 0; g < heads_.size(); ++g) fits &= window_ + stored[g] <= heads_[g].capacity;
  if (fits) return;
  // A head that grows takes half of what it stores as slack: copying stays linear in the tokens.
  std::vector<Head> grown = heads_;
  int64_t rows = 0;
  for (size_t g = 0; g < heads_.size(); ++g) {
    Head& head = grown[g];
    if (window_ + stored[g] > head.capacity)
      head.capacity = window_ + std::min(round_up(stored[g] + stored[g] / 2, kPage),
                                         std::max(stored[g], max_tokens_ - window_));
    head.first = rows;
    rows += head.capacity;
  }
  const MemoryScope scope(MemoryOwner::kCache);
  for (Tensor* buffer : {&k_, &v_}) {
    Tensor larger = Tensor::empty({rows, 1, buffer->size(2)}, buffer->dtype(), buffer->device());
    for (size_t g = 0; g < heads_.size(); ++g) {
      const int64_t count = row_count(static_cast<int64_t>(g));
      if (count == 0) continue;
      copy_rows_of(buffer->slice(0, heads_[g].first, heads_[g].first + count),
                   larger.slice(0, grown[g].first, grown[g].first + count));
    }
    *buffer = larger;
  }
  heads_ = std::move(grown);
}

void SelfPrunedCache::copy_rows(const Tensor& k, const Tensor& v, int64_t head, int64_t from,
                                int64_t count, int64_t to) {
  const int64_t row = at(head).first + to;
  for (const auto& [source, target] : {std::pair{&k, &k_}, std::pair{&v, &v_}})
    copy_rows_of(source->slice(0, from, from + count).slice(1, head, head + 1),
                 target->slice(0, row, row + count));
}

void SelfPrunedCache::fill(const Tensor& k, const Tensor& v, std::span<const uint8_t> keep) {
  LH_CHECK(length_ == 0, "[cache] fill() needs an empty cache, this one has seen {}", length_);
  const int64_t count = k.size(0), kv_heads = k.size(1);
  if (count > max_tokens_)
    fail("the key-value cache holds {} tokens, {} are given; make it larger", max_tokens_, count);
  const int64_t old = std::max<int64_t>(0, count - window_);  // tokens that have left the window
  const auto kept = [&](int64_t row, int64_t g) {
    return keep[static_cast<size_t>(row * kv_heads + g)] != 0;
  };
  std::vector<int64_t> stored(heads_.size(), 0);
  for (int64_t g = 0; g < kv_heads; ++g)
    for (int64_t i = 0; i < old; ++i) stored[static_cast<size_t>(g)] += kept(i, g) ? 1 : 0;
  reserve(stored);
  for (int64_t g = 0; g < kv_heads; ++g) {
    Head& head = heads_[static_cast<size_t>(g)];
    for (int64_t begin = 0, end = 0; begin < old; begin = end + 1) {  // runs of kept tokens
      for (end = begin; end < old && kept(end, g);) ++end;
      if (begin < end) copy_rows(k, v, g, begin, end - begin, window_ + head.stored);
      head.stored += end - begin;
    }
    for (int64_t i = old; i < count;) {  // at most two runs: the ring's end, then its start
      const int64_t slot = i % window_, run = std::min(count - i, window_ - slot);
      copy_rows(k, v, g, i, run, slot);
      for (int64_t j = 0; j < run; ++j)
        head.keep[static_cast<size_t>(slot + j)] = kept(i + j, g) ? 1 : 0;
      i += run;
    }
  }
  length_ = count;
}

void SelfPrunedCache::push(const Tensor& k, const Tensor& v, std::span<const uint8_t> keep) {
  if (length_ == max_tokens_)
    fail("the key-value cache holds {} tokens and is full; make it larger", max_tokens_);
  const int64_t slot = length_ % window_;
  if (length_ >= window_) {  // the slot holds the key that leaves the window now
    std::vector<int64_t> stored;
    for (const Head& head : heads_)
      stored.push_back(head.stored + head.keep[static_cast<size_t>(slot)]);
    reserve(stored);
    for (Head& head : heads_) {
      if (head.keep[static_cast<size_t>(slot)] == 0) continue;
      const int64_t from = head.first + slot, to = head.first + window_ + head.stored++;
      for (Tensor* buffer : {&k_, &v_})
        copy_rows_of(buffer->slice(0, from, from + 1), buffer->slice(0, to, to + 1));
    }
  }
  for (size_t g = 0; g < heads_.size(); ++g) {
    copy_rows(k, v, static_cast<int64_t>(g), 0, 1, slot);
    heads_[g].keep[static_cast<size_t>(slot)] = keep[g];
  }
  ++length_;
}

std::vector<uint8_t> SelfPrunedCache::copy_ordered(int64_t head, const Tensor& k,
                                                   const Tensor& v) const {
  const Head& h = at(head);
  const int64_t ring = std::min(length_, window_);
  const int64_t oldest = length_ > window_ ? length_ % window_ : 0;  // slot of the oldest key
  std::vector<uint8_t> keep;
  int64_t row = 0;
  const auto append = [&](int64_t begin, int64_t end) {
    if (begin >= end) return;
    for (const auto& [source, target] : {std::pair{&k_, &k}, std::pair{&v_, &v}})
      copy_rows_of(source->slice(0, h.first + begin, h.first + end),
                   target->slice(0, row, row + end - begin));
    row += end - begin;
  };
  append(window_, window_ + h.stored);
  for (const auto& [begin, end] : {std::pair{oldest, ring}, std::pair{int64_t{0}, oldest}}) {
    append(begin, end);
    keep.insert(keep.end(), h.keep.begin() + begin, h.keep.begin() + end);
  }
  return keep;
}

int64_t SelfPrunedCache::bytes() const {
  return static_cast<int64_t>(k_.bytes() + v_.bytes()) +
         window_ * static_cast<int64_t>(heads_.size());
}

double SelfPrunedCache::density(int64_t head) const {
  const int64_t left = length_ - window_;
  return left <= 0 ? 0 : static_cast<double>(at(head).stored) / static_cast<double>(left);
}

}  // namespace lh
