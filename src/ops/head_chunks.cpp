#include "ops/head_chunks.h"

#include <algorithm>

#include "backend/elementwise.h"
#include "backend/matmul.h"
#include "backend/operands.h"

namespace lh {

HeadChunks head_chunks(int64_t rows, int64_t vocab, int64_t bytes_per_logit, int64_t budget,
                       int64_t least_tokens) {
  constexpr int64_t kColumnUnit = 64;  // keeps every chunk but the last aligned
  const int64_t logits = std::max<int64_t>(budget / bytes_per_logit, 1);
  const int64_t tokens = std::max<int64_t>(std::min(rows, logits / vocab), 0);
  if (tokens >= std::min(rows, least_tokens)) return {std::max<int64_t>(tokens, 1), vocab};
  const int64_t block = std::min(rows, least_tokens);
  const int64_t columns = std::max(logits / block / kColumnUnit, int64_t{1}) * kColumnUnit;
  return {block, std::min(columns, vocab)};
}

HeadChunks head_chunks(int64_t rows, int64_t vocab, int64_t bytes_per_logit, Device device) {
  // Large enough for efficient products, small beside the model.
  return device.is_like_cpu() ? head_chunks(rows, vocab, bytes_per_logit, int64_t{32} << 20, 16)
                         : head_chunks(rows, vocab, bytes_per_logit, int64_t{256} << 20, 256);
}

Tensor head_logits(const Tensor& x, const Tensor& w) {
  Tensor logits = Tensor::empty({x.size(0), w.size(0)}, sum_dtype(x.dtype()), x.device());
  LH_DISPATCH_SCRATCH(x.device(), "head", gemm(x, false, w, true, logits, false));
  return logits;
}

HeadGradients HeadGradients::of(const Variable& x, const Variable& w) {
  HeadGradients gradients;
  if (will_record({x})) gradients.dx = Tensor::empty_like(x.value());
  if (will_record({w})) gradients.dw = Tensor::zeros(w.shape(), sum_dtype(x.dtype()), x.device());
  return gradients;
}

TokenGradients::TokenGradients(HeadGradients& gradients, const Tensor& x, int64_t begin,
                               int64_t end, bool chunks)
    : gradients_(gradients), x_(x.slice(0, begin, end)) {
  if (!gradients.dx.defined()) return;
  dx_ = gradients.dx.slice(0, begin, end);
  if (chunks) sum_ = Tensor::zeros(dx_.shape(), sum_dtype(x.dtype()), x.device());
}

Tensor* TokenGradients::d_logits(Tensor& logits) {
  if (!wanted()) return nullptr;
  if (x_.dtype() == logits.dtype()) return &logits;
  if (!narrow_.defined() || narrow_.size(1) != logits.size(1))
    narrow_ = Tensor::empty(logits.shape(), x_.dtype(), logits.device());
  return &narrow_;
}

void TokenGradients::add(const Tensor& w, int64_t first, const Tensor& logits) {
  if (!wanted()) return;
  const Tensor& d = x_.dtype() == logits.dtype() ? logits : narrow_;
  const int64_t end = first + d.size(1);
  if (dx_.defined()) {
    const Tensor columns = w.slice(0, first, end);
    Tensor& to = sum_.defined() ? sum_ : dx_;
    LH_DISPATCH_SCRATCH(x_.device(), "head", gemm(d, false, columns, false, to, sum_.defined()));
  }
  if (gradients_.dw.defined()) {
    Tensor dw = gradients_.dw.slice(0, first, end);
    LH_DISPATCH_SCRATCH(x_.device(), "head", gemm(d, true, x_, false, dw, true));
  }
}

void TokenGradients::finish() {
  if (sum_.defined()) LH_DISPATCH(x_.device(), "head", copy(sum_, dx_));
}

}  // namespace lh
