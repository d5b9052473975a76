// Merge of softmax attention over parts of the keys, as context parallelism and split keys need it.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

/// Part i holds out_i (normalised) and lse_i of the same queries over its own keys. A part whose
/// lse is -inf saw nothing; its out is not read. The backward pass takes the merged out and lse
/// (AttentionBwdParams), so it needs no kernel.
template <class Part, class T>
struct AttentionMergeParams {
  const Part* parts = nullptr;  // [count, rows, heads, value_dim]
  const float* lses = nullptr;  // [count, rows, heads] natural log, contiguous
  T* out = nullptr;             // [rows, heads, value_dim]; 0 where no part saw anything
  float* lse = nullptr;         // [rows, heads]; -inf there
  std::int64_t part_stride = 0;                      // elements between parts
  std::int64_t part_row_stride = 0, out_stride = 0;  // elements between rows
  int count = 0, rows = 0, heads = 0, value_dim = 0;
};

/// Part, T = float, float; float, bf16; bf16, bf16. Outputs must not overlap inputs. Throws xpu::Error when
/// value_dim is no multiple of 4 or rows are not aligned to 4 elements.
template <class Part, class T>
void attention_merge(const AttentionMergeParams<Part, T>& p, xpu::Stream stream);

}  // namespace lh::kernels
