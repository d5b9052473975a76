#include "ops/transfer.h"

namespace lh {

Variable transfer(const Variable& x, Device device) {
  if (x.device() == device) return x;
  return record("transfer", {x}, x.value().to(device), [from = x.device()](Gradients& gradients) {
    gradients.add(0, gradients.output().to(from));
  });
}

}  // namespace lh
