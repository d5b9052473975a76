// Checks that the losses of backend/loss.h make on every device.
#pragma once

#include "backend/loss.h"
#include "backend/operands.h"

namespace lh {

inline void check_logits(const Tensor& logits, const VocabularyChunk& chunk, const Tensor& targets,
                         const Tensor* gradient, std::string_view op) {
  check_rank(logits, 2, op, "logits");
  check_contiguous(logits, op, "logits");
  if (logits.dtype() != DType::kF32 && logits.dtype() != DType::kF64)
    fail<ShapeError>("[{}] logits: expected f32 or f64, got {}", op, logits.str());
  if (logits.size(1) < 1 || chunk.first < 0 || chunk.first + logits.size(1) > chunk.vocab)
    fail<ShapeError>("[{}] columns {} + {} are not in a vocabulary of {}", op, chunk.first,
                     logits.size(1), chunk.vocab);
  if (targets.defined()) {
    check_shape(targets, {logits.size(0)}, op, "targets");
    check_dtype(targets, DType::kI32, op, "targets");
    check_contiguous(targets, op, "targets");
  }
  if (gradient == nullptr) return;
  check_shape(*gradient, logits.shape(), op, "gradient");
  check_contiguous(*gradient, op, "gradient");
  const bool narrow = gradient->dtype() == DType::kBF16 && logits.dtype() == DType::kF32;
  if (!narrow) check_dtype(*gradient, logits.dtype(), op, "gradient");
}

/// statistics [3, n] and what is made of them: targets and losses [n].
inline void check_loss_rows(const Tensor& statistics, const Tensor& targets, const Tensor& losses,
                            std::string_view op) {
  check_rank(statistics, 2, op, "statistics");
  check_sum(statistics, {3, statistics.size(1)}, statistics.dtype(), op, "statistics");
  check_shape(targets, {statistics.size(1)}, op, "targets");
  check_dtype(targets, DType::kI32, op, "targets");
  check_contiguous(targets, op, "targets");
  check_sum(losses, {statistics.size(1)}, statistics.dtype(), op, "losses");
}

inline void check_statistics(const Tensor& statistics, const Tensor& logits, std::string_view op) {
  check_sum(statistics, {3, logits.size(0)}, logits.dtype(), op, "statistics");
}

}  // namespace lh
