#include "optim/clip.h"

#include <algorithm>
#include <cmath>

namespace lh {

void grad_sum_of_squares(const ParameterStore& store, TensorList& list, Tensor& out) {
  list.tensors.clear();
  for (const auto& parameter : store.all()) {
    const Tensor gradient = parameter->variable.grad();
    if (gradient.defined()) list.tensors.push_back(gradient);
  }
  LH_DISPATCH(out.device(), "grad_norm", sum_of_squares(list, out));
}

double global_grad_norm(const ParameterStore& store) {
  TensorList list;
  Tensor sum = Tensor::empty({1}, DType::kF64, store.device());
  grad_sum_of_squares(store, list, sum);
  return std::sqrt(sum.item());
}

double clip_factor(double clip_norm, double norm) {
  return clip_norm > 0 && norm > clip_norm ? clip_norm / norm : 1;
}

std::optional<size_t> first_non_finite_gradient(const ParameterStore& store) {
  Tensor count = Tensor::empty({1}, DType::kI64, store.device());
  for (size_t i = 0; i < store.all().size(); ++i) {
    const Tensor gradient = store.all()[i]->variable.grad();
    if (!gradient.defined()) continue;
    LH_DISPATCH(gradient.device(), "grad_norm", count_non_finite(gradient, count));
    if (count.item() > 0) return i;
  }
  return std::nullopt;
}

}  // namespace lh
