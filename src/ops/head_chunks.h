// How losses over a language-model head cut tokens and vocabulary, so that the logits of a batch never
// exist, and the matrix products of one chunk.
#pragma once

#include <cstdint>

#include "autograd/variable.h"

namespace lh {

/// Blocks of logits that exist at a time: `tokens` rows of `columns` of the vocabulary.
struct HeadChunks {
  int64_t tokens = 0, columns = 0;

  bool whole_vocabulary(int64_t vocab) const { return columns >= vocab; }
};

/// Whole rows of the vocabulary for as many tokens as `budget` bytes hold: one product then serves loss
/// and gradient. Where that is fewer than `least_tokens`, as many columns as fit for that many
/// tokens: each block's logits are then made twice, once for the softmax and once for the gradient.
HeadChunks head_chunks(int64_t rows, int64_t vocab, int64_t bytes_per_logit, int64_t budget,
                       int64_t least_tokens);

/// The same with the budget of a device.
HeadChunks head_chunks(int64_t rows, int64_t vocab, int64_t bytes_per_logit, Device device);

/// x w^T in f32 (f64 for f64): [tokens, d] and [columns, d] to [tokens, columns].
Tensor head_logits(const Tensor& x, const Tensor& w);

/// Gradients of x [n, d] and w [vocab, d] from gradients of logits, chunk by chunk. They are those of
/// 1 times the loss; undefined where not wanted.
struct HeadGradients {
  Tensor dx;  // like x
  Tensor dw;  // f32 (f64)

  /// Those that an op of these records, dw zero-filled.
  static HeadGradients of(const Variable& x, const Variable& w);
  bool wanted() const { return dx.defined() || dw.defined(); }
};

/// Gradients of the tokens [begin, begin + rows), summed over their chunks of columns in f32.
class TokenGradients {
 public:
  /// `chunks`: d_x is summed up aside, over several of them, and rounded once, by finish().
  TokenGradients(HeadGradients& gradients, const Tensor& x, int64_t begin, int64_t end, bool chunks);

  bool wanted() const { return gradients_.wanted(); }
  /// Where a chunk's gradient of logits goes: the logits themselves, or bf16 beside them. Null when not wanted.
  Tensor* d_logits(Tensor& logits);
  /// Takes the gradient of columns [first, ...) in.
  void add(const Tensor& w, int64_t first, const Tensor& logits);
  void finish();

 private:
  HeadGradients& gradients_;
  Tensor x_, dx_, sum_, narrow_;
};

}  // namespace lh
