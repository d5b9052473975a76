// Linear + cross-entropy, a chunk of tokens at a time: logits, softmax and both gradient products
// are made while the chunk's logits are warm, and only the chunk's logits ever exist.
#include "backend/loss.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "backend/cpu/lanes.h"
#include "backend/operands.h"
#include "backend/cpu/simd/elementwise.h"
#include "backend/cpu/simd/loss.h"
#include "backend/matmul.h"
#include "base/math.h"

namespace lh::cpu {
namespace {

// Bytes of the chunk's logits: large enough for an efficient product, small beside the model.
constexpr int64_t kChunkBytes = 32 << 20;

/// Per row: the loss, and the gradient of `scale` * loss by the logits into `d_logits`, which may be
/// `logits` itself (f32, f64) or bfloat16. Overwrites the logits. No gradient where it is nullptr.
template <typename S, typename G>
void softmax_rows(Tensor& logits, const int32_t* targets, double logit_scale, double scale,
                  G* d_logits, S* losses) {
  const int64_t rows = logits.size(0), vocab = logits.size(1);
  const S stretch = static_cast<S>(logit_scale), factor = static_cast<S>(scale * logit_scale);
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    S* z = logits.data<S>() + r * vocab;
    G* dz = d_logits == nullptr ? nullptr : d_logits + r * vocab;
    if (targets[r] < 0) {
      losses[r] = 0;
      if (dz != nullptr) std::fill_n(dz, vocab, G(0));
      continue;
    }
    const S target = z[targets[r]];
    S top;
    const S sum = LH_SIMD_CALL(softmax_numerators(z, vocab, stretch, &top));
    losses[r] = std::log(sum) + stretch * (top - target);
    if (dz == nullptr) continue;
    const S share = factor / sum;
    // Before rounding: p - 1 of a nearly certain target is small.
    z[targets[r]] -= sum;
    if constexpr (std::is_same_v<G, uint16_t>) LH_SIMD_CALL(scale_to_bf16(z, share, dz, vocab));
    else LH_SIMD_CALL(scale(z, share, dz, vocab));
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
    Tensor d_logits = logits;
    const auto rows_of = [&]<typename S, typename G>(G* gradients) {
      softmax_rows<S>(logits, target + begin, options.logit_scale, options.grad_scale, gradients,
                      losses.data<S>() + begin);
    };
    if (wide == DType::kF64) {
      rows_of.template operator()<double>(gradient ? logits.data<double>() : nullptr);
    } else if (gradient && x.dtype() == DType::kBF16) {
      d_logits = Tensor::empty(logits.shape(), DType::kBF16);
      rows_of.template operator()<float>(lanes<bf16>(d_logits));
    } else {
      rows_of.template operator()<float>(gradient ? logits.data<float>() : nullptr);
    }
    if (!gradient) continue;
    Tensor dx_part = dx->slice(0, begin, end);
    gemm(d_logits, false, w, false, dx_part, false);
    gemm(d_logits, true, part, false, *d_weight, true);
  }
}

}  // namespace lh::cpu
