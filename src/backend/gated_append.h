// What self-pruned key-value attention keeps of a text when it decodes (SP-KV, arXiv 2605.14037): per kv
// head the last `window` tokens in a ring, each with the bit that says whether it outlives the window,
// and the tokens that did.
#pragma once

#include "backend/paged_attention.h"

namespace lh {

/// The caches of `heads` kv heads, of one text or of several side by side. Token t of a head is key
/// t % window while it is one of the last `window`; the keys from `window` on are those that were kept.
struct GatedCache {
  PagedKeys keys;  // a sequence per head; lengths: min(seen, window), and those kept
  Tensor seen;     // [heads] i32 tokens so far
  Tensor bits;     // [heads, window] u8: whether the token in a place of the ring outlives it
};

}  // namespace lh

LH_BACKENDS(
    /// The next n tokens of every head: k [n, heads, d], v [n, heads, d_v] of the cache's dtype, inner two
    /// dimensions contiguous; gates [n, heads] f32 (f64 for f64), contiguous: 0 keeps the token beyond
    /// the window, -inf does not. One launch, without a look at the device's counts: every head's
    /// table must have pages for its new length, which is at most n more.
    void gated_append(const Tensor& k, const Tensor& v, const Tensor& gates, GatedCache& cache);)
