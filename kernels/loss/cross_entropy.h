// Softmax cross-entropy over rows of logits: the losses and the gradient by the logits, over whole rows
// in one call, or over chunks of columns in two passes. The products around it (x w^T, d_logits w,
// d_logits^T x) are the caller's.
#pragma once
#include "kernels/loss/softmax_statistics.h"

namespace lh::kernels {

/// z = logit_scale * logits; loss = logsumexp(z) - z[target];
/// d_logits = (softmax(z) - onehot(target)) * logit_scale. Rows with target -1 have loss and
/// gradient 0; a target outside [-1, vocab) has loss NaN.
template <class T>
struct CrossEntropyParams {
  const float* logits = nullptr;          // [rows, vocab], contiguous
  const std::int32_t* targets = nullptr;  // [rows]
  float* losses = nullptr;                // [rows]
  T* d_logits = nullptr;                  // [rows, vocab]; or null. May be logits when T is float
  float logit_scale = 1.0f;
  int rows = 0, vocab = 0;
};

template <class T>
void cross_entropy(const CrossEntropyParams<T>& p, xpu::Stream stream);

/// losses [rows] from the statistics of all columns.
void cross_entropy_losses(const SoftmaxStatistics& s, const std::int32_t* targets, float* losses,
                          int rows, xpu::Stream stream);

/// d_logits of a chunk of columns, from the statistics of all; may be the logits when T is float.
template <class T>
void cross_entropy_gradient(const SoftmaxChunk& chunk, const SoftmaxStatistics& s, T* d_logits,
                            xpu::Stream stream);

}  // namespace lh::kernels
