#include "parallel/group_sum.h"

#include "backend/elementwise.h"

namespace lh {
namespace {

Tensor summed(const Tensor& x, Communicator& group, const std::string& label) {
  Tensor sum = Tensor::empty(x.shape(), x.dtype(), x.device());
  LH_DISPATCH(x.device(), "sum_over_group", copy(x, sum));
  group.all_reduce(sum, ReduceOp::kSum, label);
  return sum;
}

}  // namespace

Variable sum_over_group(const Variable& x, Communicator& group, const std::string& label) {
  return record("sum_over_group", {x}, summed(x.value(), group, label), [&group, label](Gradients& gradients) {
    gradients.add(0, summed(gradients.output(), group, "d " + label));
  });
}

}  // namespace lh
