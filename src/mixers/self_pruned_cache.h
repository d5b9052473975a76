// The past of one sequence under SP-KV: per kv head a ring of the last `window` keys, each with the
// bit that says whether it outlives the window, and behind it the store of those that did. Heads
// keep different numbers of keys, so each has its own range of rows, which grows when it is full.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "mixers/mixer.h"

namespace lh {

class SelfPrunedCache final : public MixerCache {
 public:
  SelfPrunedCache(int64_t window, int64_t max_tokens, int64_t kv_heads, int64_t head_dim,
                  DType dtype, Device device);

  /// The whole first part of a sequence: k, v [n, G, d] rotated, keep [n, G]. The cache is empty.
  void fill(const Tensor& k, const Tensor& v, std::span<const uint8_t> keep);
  /// The next token: k, v [1, G, d], keep [G]. The key that leaves the ring is stored or dropped.
  void push(const Tensor& k, const Tensor& v, std::span<const uint8_t> keep);

  /// The keys of head g are rows [first_row(g), first_row(g) + row_count(g)) of keys() and
  /// values(), in no order of position.
  const Tensor& keys() const { return k_; }    // [rows, 1, d]
  const Tensor& values() const { return v_; }  // [rows, 1, d]
  int64_t first_row(int64_t head) const { return at(head).first; }
  int64_t row_count(int64_t head) const { return std::min(length_, window_) + at(head).stored; }

  /// The keys and values of head g to the first row_count(g) rows of k, v [rows, 1, d]: the stored
  /// ones, then the ring in order of position. Returns the bits of the ring in that order.
  std::vector<uint8_t> copy_ordered(int64_t head, const Tensor& k, const Tensor& v) const;

  int64_t length() const { return length_; }  // tokens seen
  /// What is allocated: keys, values and gate bits.
  int64_t bytes() const override;
  /// Share of the tokens that left the window which head g keeps; 0 when none has left.
  double density(int64_t head) const;

 private:
  struct Head {
    int64_t first = 0, capacity = 0;  // rows
    int64_t stored = 0;               // rows behind the ring
    std::vector<uint8_t> keep;        // per slot of the ring
  };
  const Head& at(int64_t head) const { return heads_[static_cast<size_t>(head)]; }
  /// Room for `stored[g]` rows behind the ring of every head g.
  void reserve(std::span<const int64_t> stored);
  /// Rows [from, from + count) of head g of k and v [n, G, d] to row `to` of the head's range.
  void copy_rows(const Tensor& k, const Tensor& v, int64_t head, int64_t from, int64_t count,
                 int64_t to);

  int64_t window_, max_tokens_, length_ = 0;
  Tensor k_, v_;
  std::vector<Head> heads_;
};

}  // namespace lh
