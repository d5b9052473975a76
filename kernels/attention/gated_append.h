// Append of new tokens to self-pruned key-value caches (SP-KV, arXiv 2605.14037, inference).
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

/// A head's cache: rows [0, window) are a ring, token t in row t % window, and the rows from `window`
/// on are the tokens that left the ring with their bit set, in order. Row r of head h is row
///   pages[h, r / page_size] page_size + r % page_size
/// of k and v. Heads of several sequences may stand side by side. seen and lengths are read and
/// written on the device only, so a captured launch may be replayed.
template <class T>
struct GatedAppendParams {
  const T* new_k = nullptr;      // [tokens, heads, head_dim]
  const T* new_v = nullptr;      // [tokens, heads, value_dim]
  const float* gates = nullptr;  // [tokens, heads]: 0 sets the token's bit, -inf clears it
  T* k = nullptr;                // [cache rows, head_dim]
  T* v = nullptr;                // [cache rows, value_dim]
  const int* pages = nullptr;    // [heads, pages_per_head]; the new length of the head has pages
  std::uint8_t* bits = nullptr;  // [heads, window]: whether the token in a row of the ring outlives it
  int* seen = nullptr;           // [heads] tokens so far
  int* lengths = nullptr;        // [heads] rows in use: min(seen, window), and those kept
  std::int64_t k_stride = 0, v_stride = 0;  // elements between tokens of new_k and new_v
  int tokens = 0, heads = 0, head_dim = 0, value_dim = 0;
  int window = 0, page_size = 0, pages_per_head = 0;
};

/// T = float and xpu::bf16. One launch. Throws xpu::Error when rows are not 16-byte aligned, head sizes
/// no multiple of 16 bytes, the page size no power of two of at least 16, or the window below 1 or
/// beyond the page table.
template <class T>
void gated_append(const GatedAppendParams<T>& p, xpu::Stream stream);

}  // namespace lh::kernels
