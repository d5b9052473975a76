// The past of one sequence under SP-KV: per kv head a ring of the last `window` keys, each with the bit
// that says whether it outlives the window, and the keys that did. Heads keep different numbers of keys,
// in pages of one pool. The counts live on the device, where a token is appended and attended to without
// the host: a head gains at most one key per token, so the host looks only when the pages that were there
// at its last look could be full.
#pragma once

#include <limits>
#include <vector>

#include "backend/gated_append.h"
#include "mixers/mixer.h"

namespace lh {

class SelfPrunedCache final : public MixerCache {
 public:
  SelfPrunedCache(int64_t window, int64_t max_tokens, int64_t kv_heads, int64_t head_dim,
                  DType dtype, Device device);

  /// The next n tokens: k, v [n, G, d] rotated, gates [n, G] hard, the bias of attention.
  void append(const Tensor& k, const Tensor& v, const Tensor& gates);

  /// Heads' outputs [1, H, d] of the token appended last: q [1, H, d].
  Tensor attend(const Tensor& q, double scale) const;

  /// A head's keys in order of position: those that left the ring, then those in it.
  struct OrderedHead {
    Tensor k, v;                // [rows, 1, d], copies
    std::vector<uint8_t> kept;  // bits of the last kept.size() rows, those in the ring
  };
  /// Waits for the device.
  std::vector<OrderedHead> ordered() const;

  int64_t length() const { return length_; }  // tokens seen
  /// Keys of every head. Waits for the device.
  std::vector<int64_t> row_counts() const;

  /// What is allocated: pages, of which the last ones of a head may be empty, their table, counts, bits.
  int64_t bytes() const override;
  KeptKeys kept_keys() const override;

 private:
  /// Sees to it that `count` more tokens, whose gates [n, G] these are, have pages.
  void make_room(int64_t count, const Tensor& gates);
  /// Pages for `rows[g]` keys of every head g.
  void reserve(const std::vector<int64_t>& rows);

  int64_t window_, max_tokens_, length_ = 0;
  GatedCache cache_;
  std::vector<int32_t> table_;  // cache_.keys.table
  int64_t used_pages_ = 0;
  int64_t safe_tokens_ = 0;  // so many more have pages, whatever their gates
};

}  // namespace lh
