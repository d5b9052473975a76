// Softmax attention of one query per sequence over keys in pages of one pool (Kwon et al. 2023), as many
// per sequence as the device says: the host launches the same work while the keys become more. A
// "sequence" may be one kv head of a text, where heads keep different keys.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/dispatch.h"
#include "tensor/tensor.h"

namespace lh {

/// Key j of sequence s is row j % rows of page table[s, j / rows].
struct PagedKeys {
  Tensor k;        // [pages, rows, d]; rows is a power of two of at least 16
  Tensor v;        // [pages, rows, d_v]
  Tensor table;    // [sequences, most pages of a sequence] i32
  Tensor lengths;  // [sequences] i32, keys of each
  /// Keys that the pages of each sequence have room for, on the host: what the work is shared out by.
  std::vector<int64_t> capacities;
};

}  // namespace lh

LH_BACKENDS(
    /// q, out [sequences, heads, d] (out: d_v), inner two dimensions contiguous, all of one dtype with k
    /// and v; all heads read the same keys, all of which are visible. lse [sequences, heads] f32 (f64
    /// for f64) as of attention_forward: 0 and -inf where there are no keys.
    void paged_attention(const Tensor& q, const PagedKeys& keys, double scale, Tensor& out,
                         Tensor& lse);)
