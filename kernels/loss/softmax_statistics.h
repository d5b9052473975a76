// What the softmax of a row needs of the whole row, gathered a chunk of columns at a time.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

/// Each [rows]: the largest z = scale * logit so far, the sum of e^(z - largest), z of the target.
struct SoftmaxStatistics {
  float *top = nullptr, *sum = nullptr, *of_target = nullptr;
};

/// Columns [first, first + columns) of rows of logits.
struct SoftmaxChunk {
  const float* logits = nullptr;          // [rows, columns], contiguous
  const std::int32_t* targets = nullptr;  // [rows] in the whole vocabulary; or null
  float scale = 1.0f;
  int rows = 0, columns = 0, first = 0, vocab = 0;
};

/// Takes a chunk in; the one with first = 0 starts the statistics. A target outside [-1, vocab)
/// makes of_target NaN.
void softmax_statistics(const SoftmaxChunk& chunk, const SoftmaxStatistics& s, xpu::Stream stream);

}  // namespace lh::kernels
