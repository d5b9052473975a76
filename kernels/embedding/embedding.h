// Embedding lookup and its gradient, f32 and bf16.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

/// y[i] = weight[ids[i]] * scale. A row whose id is outside [0, vocab) becomes NaN.
template <class T>
struct EmbeddingFwdParams {
  const T* weight = nullptr;          // [vocab, dim]
  const std::int32_t* ids = nullptr;  // [n]
  T* y = nullptr;                     // [n, dim]
  int n = 0, dim = 0, vocab = 0;
  float scale = 1.0f;
};

/// dweight[ids[i]] += dy[i] * scale, rows of one id in the order of i. Ids outside are skipped.
template <class T>
struct EmbeddingBwdParams {
  const std::int32_t* ids = nullptr;  // [n]
  const T* dy = nullptr;              // [n, dim]
  float* dweight = nullptr;           // [vocab, dim]
  std::int32_t* workspace = nullptr;  // embedding_bwd_workspace(n, dim) elements of 4 bytes
  int n = 0, dim = 0, vocab = 0;
  float scale = 1.0f;
};

template <class T>
void embedding_fwd(const EmbeddingFwdParams<T>& p, xpu::Stream stream);
template <class T>
void embedding_bwd(const EmbeddingBwdParams<T>& p, xpu::Stream stream);

std::size_t embedding_bwd_workspace(int n, int dim);

}  // namespace lh::kernels
