// Softmax attention of a few new tokens per sequence over a long key-value cache (decoding, and its
// speculative variants): bound by reading the cache once.
#pragma once
#include "kernels/attention/params.h"

namespace lh::kernels {

/// As AttentionFwdParams where the names agree. A segment is one sequence: query_length new tokens
/// at most p.tokens (0: an unused place), key_length cached keys, the new ones included. The keys
/// are rows key_begin.. of k and v, or with a page table, position j of sequence s is row
///   pages[s, j / page_size] page_size + j % page_size
/// and key_begin is not used. Pages of positions nobody sees are not read. Segments, lengths and page
/// table are read on the device only, so a captured launch may be replayed after they changed.
template <class T>
struct AttentionDecodeParams {
  /// Query rows of a block, the (token, query head) pairs that share a kv head, and sums of values
  /// that each leaves.
  static constexpr int kRows = 16, kSums = 1;
  const T* q = nullptr;         // [nq, heads, head_dim]
  const T* k = nullptr;         // [cache rows, kv_heads, head_dim]
  const T* v = nullptr;         // [cache rows, kv_heads, value_dim]
  const float* bias = nullptr;  // [cache rows, kv_heads], or null
  T* out = nullptr;             // [nq, heads, value_dim]; 0 for a row that sees nothing
  float* partial = nullptr;     // the same in fp32, for a merge; written instead of out if not null
  float* lse = nullptr;         // [nq, heads] natural log; -inf for a row that sees nothing
  std::int64_t q_stride = 0, k_stride = 0, v_stride = 0, out_stride = 0;  // out_stride: partial too
  int heads = 0, kv_heads = 0, head_dim = 0, value_dim = 0;
  float scale = 1.0f;  // above 0
  AttentionMask mask;
  const AttentionSegment* segments = nullptr;  // [sequences]
  const int* lengths = nullptr;  // [sequences], in place of segments: row s of q after lengths[s] keys
  const int* pages = nullptr;                  // [sequences, pages_per_sequence], or null
  int sequences = 0, tokens = 1;
  int page_size = 0, pages_per_sequence = 0;  // page_size: a power of two of at least 16
  int splits = 1, split_keys = 0;             // AttentionDecodeSplit of decode_split.h
  float* workspace = nullptr;  // attention_decode_workspace floats, not read before written
  int* counters = nullptr;     // attention_decode_counters ints, all 0; 0 again after the launch
};

/// Blocks that work on the same keys of the same kv head.
template <class Params>
XPU_HD int attention_decode_row_tiles(const Params& p) {
  const int rows = p.tokens * (p.heads / p.kv_heads);
  return (rows + Params::kRows - 1) / Params::kRows;
}

/// Ints of AttentionDecodeParams::counters. Launches that may run at the same time need their own.
template <class Params>
std::size_t attention_decode_counters(const Params& p) {
  if (p.splits <= 1) return 0;
  return static_cast<std::size_t>(p.sequences) * static_cast<std::size_t>(p.kv_heads) *
         static_cast<std::size_t>(attention_decode_row_tiles(p));
}

/// Floats of AttentionDecodeParams::workspace.
template <class Params>
std::size_t attention_decode_workspace(const Params& p) {
  return attention_decode_counters(p) * static_cast<std::size_t>(p.splits) * Params::kRows *
         Params::kSums * (static_cast<std::size_t>(p.value_dim) + 1);
}

/// T = float and xpu::bf16. One launch. Throws xpu::Error for what attention_fwd refuses, a page size
/// that is no power of two or below 16, and missing segments, workspace or counters.
template <class T>
void attention_decode(const AttentionDecodeParams<T>& p, xpu::Stream stream);

}  // namespace lh::kernels
