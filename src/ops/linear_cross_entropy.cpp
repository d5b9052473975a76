#include "ops/linear_cross_entropy.h"

#include <algorithm>

#include "backend/loss.h"
#include "ops/head_loss.h"

namespace lh {
namespace {

/// Tokens [begin, end) with their logits whole.
void whole_rows(const Tensor& x, const Tensor& w, const Tensor& targets, double logit_scale,
                TokenGradients& gradients, Tensor& losses) {
  Tensor logits = head_logits(x, w);
  Tensor* d_logits = gradients.d_logits(logits);
  LH_DISPATCH(x.device(), "linear_cross_entropy",
              cross_entropy(logits, targets, logit_scale, losses, d_logits));
  gradients.add(w, 0, logits);
}

/// The same a chunk of the vocabulary at a time.
void chunked_rows(const Tensor& x, const Tensor& w, const Tensor& targets, double logit_scale,
                  int64_t columns, TokenGradients& gradients, Tensor& losses) {
  const int64_t vocab = w.size(0);
  Tensor statistics = Tensor::empty({3, x.size(0)}, losses.dtype(), x.device());
  const auto each_chunk = [&](auto&& function) {
    for (int64_t first = 0; first < vocab; first += columns) {
      Tensor logits = head_logits(x, w.slice(0, first, std::min(vocab, first + columns)));
      function(VocabularyChunk{first, vocab}, logits);
    }
  };
  each_chunk([&](const VocabularyChunk& chunk, Tensor& logits) {
    LH_DISPATCH(x.device(), "linear_cross_entropy",
                softmax_statistics(logits, chunk, targets, logit_scale, statistics));
  });
  LH_DISPATCH(x.device(), "linear_cross_entropy",
              cross_entropy_losses(statistics, targets, losses));
  if (!gradients.wanted()) return;
  each_chunk([&](const VocabularyChunk& chunk, Tensor& logits) {
    Tensor& d_logits = *gradients.d_logits(logits);
    LH_DISPATCH(x.device(), "linear_cross_entropy",
                cross_entropy_gradient(logits, chunk, targets, logit_scale, statistics, d_logits));
    gradients.add(w, chunk.first, logits);
  });
}

}  // namespace

LinearCrossEntropy linear_cross_entropy(const Variable& x, const Variable& weight,
                                        const Tensor& targets, double logit_scale,
                                        std::optional<HeadChunks> chunks) {
  check_head(x, weight, targets, "linear_cross_entropy");
  const int64_t rows = x.size(0), vocab = weight.size(0);
  if (!chunks)
    chunks = head_chunks(rows, vocab, x.dtype() == DType::kBF16 ? 6 : 4, x.device());
  HeadGradients gradients = HeadGradients::of(x, weight);
  Tensor losses = Tensor::empty({rows}, sum_dtype(x.dtype()), x.device());
  const bool whole = chunks->whole_vocabulary(vocab);
  for (int64_t begin = 0; begin < rows; begin += chunks->tokens) {
    const int64_t end = std::min(rows, begin + chunks->tokens);
    TokenGradients part(gradients, x.value(), begin, end, !whole);
    const Tensor tokens = x.value().slice(0, begin, end), wanted = targets.slice(0, begin, end);
    Tensor losses_part = losses.slice(0, begin, end);
    if (whole)
      whole_rows(tokens, weight.value(), wanted, logit_scale, part, losses_part);
    else
      chunked_rows(tokens, weight.value(), wanted, logit_scale, chunks->columns, part, losses_part);
    part.finish();
  }
  return {record_head_loss("linear_cross_entropy", x, weight, losses, std::move(gradients)), losses};
}

}  // namespace lh
