#include "ops/reshape.h"

namespace lh {

Variable reshape(const Variable& x, const Shape& shape) {
  return record("reshape", {x}, x.value().reshape(shape), [from = x.shape()](Gradients& gradients) {
    gradients.add(0, gradients.output().reshape(from));
  });
}

}  // namespace lh
