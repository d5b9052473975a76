#include "ops/embedding.h"

#include "backend/embedding.h"

namespace lh {

Variable embedding(const Variable& weight, const Tensor& ids, double scale) {
  if (weight.value().rank() != 2 || ids.rank() != 1)
    fail<ShapeError>("[embedding] expected weight [vocab, d] and ids [n], got {} and {}",
                     weight.value().str(), ids.str());
  check_dtype(ids, DType::kI32, "embedding", "ids");
  Tensor y = Tensor::empty({ids.size(0), weight.size(1)}, weight.dtype(), weight.device());
  LH_DISPATCH(weight.device(), "embedding", embedding_forward(weight.value(), ids, scale, y));
  return record("embedding", {weight}, y, [ids, scale](Gradients& gradients) {
    Tensor dw = gradients.accumulator(0);
    LH_DISPATCH(dw.device(), "embedding", embedding_backward(ids, gradients.output(), scale, dw));
  });
}

}  // namespace lh
