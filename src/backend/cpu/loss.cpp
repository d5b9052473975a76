// Linear + cross-entropy, a chunk of tokens at a time: logits, softmax and both gradient products
// are made while the chunk's logits are warm, and only the chunk's logits ever exist.
#include "backend/loss.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/elementwise.h"
#include "backend/matmul.h"
#include "base/math.h"

namespace lh::cpu {
namespace {

// Bytes of the chunk's logits: large enough for an efficient product, small beside the model.
constexpr int64_t kChunkBytes = 32 << 20;

/// Per row: loss, and in place the gradient of the loss by the logit, times `scale`.
template <typename A>
void softmax_rows(Tensor& logits, const int32_t* targets, double logit_scale, double scale,
                  bool gradient, A* losses) {
  const int64_t rows = logits.size(0), vocab = logits.size(1);
  A* data = logits.data<A>();
  const A stretch = static_cast<A>(logit_scale), factor = static_cast<A>(scale * logit_scale);
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    A* z = data + r * vocab;
    if (targets[r] < 0) {
      losses[r] = 0;
      if (gradient) std::fill_n(z, vocab, A(0));
      continue;
    }
    A top = z[0];
#pragma omp simd reduction(max : top)
    for (int64_t i = 0; i < vocab; ++i) top = std::max(top, z[i]);
    const A target = z[targets[r]];
    A sum = 0;
    for (int64_t i = 0; i < vocab; ++i) {
      z[i] = std::exp(stretch * (z[i] - top));
      sum += z[i];
    }
    losses[r] = std::log(sum) + stretch * (top - target);
    if (!gradient) continue;
    const A share = factor / sum;
#pragma omp simd
    for (int64_t i = 0; i < vocab; ++i) z[i] *= share;
    z[targets[r]] -= factor;
  }
}

}  // namespace

void linear_cross_entropy(const Tensor& x, const Tensor& w, const Tensor& targets,
                          const LinearCrossEntropyOptions& options, Tensor& losses, Tensor* dx,
                          Tensor* d_weight) {
  const int64_t rows = x.size(0), vocab = w.size(0);
  const DType wide = x.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
  const int32_t* target = targets.data<int32_t>();
  for (int64_t r = 0; r < rows; ++r)
    if (target[r] < -1 || target[r] >= vocab)
      fail<ShapeError>("[linear_cross_entropy] target {} at row {} is outside the vocabulary of {}",
                       target[r], r, vocab);
  const bool gradient = dx != nullptr;
  const int64_t chunk =
      options.chunk_tokens > 0
          ? options.chunk_tokens
          : std::clamp<int64_t>(kChunkBytes / (vocab * static_cast<int64_t>(dtype_size(wide))), 16,
                                std::max<int64_t>(rows, 16));
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t end = std::min(rows, begin + chunk);
    const Tensor part = x.slice(0, begin, end);
    Tensor logits = Tensor::empty({end - begin, vocab}, wide);
    gemm(part, false, w, true, logits, false);
    if (wide == DType::kF64)
      softmax_rows<double>(logits, target + begin, options.logit_scale, options.grad_scale,
                           gradient, losses.data<double>() + begin);
    else
      softmax_rows<float>(logits, target + begin, options.logit_scale, options.grad_scale, gradient,
                          losses.data<float>() + begin);
    if (!gradient) continue;
    Tensor d_logits = logits;
    if (x.dtype() == DType::kBF16) {
      d_logits = Tensor::empty(logits.shape(), DType::kBF16);
      copy(logits, d_logits);
    }
    Tensor dx_part = dx->slice(0, begin, end);
    gemm(d_logits, false, w, false, dx_part, false);
    gemm(d_logits, true, part, false, *d_weight, true);
  }
}

}  // namespace lh::cpu
