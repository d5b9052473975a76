// In place of attention_cudnn.cpp where cuDNN's headers were not found, or devices are emulated.
#include "backend/cuda/attention_cudnn.h"

namespace lh::cuda {

const std::string& cudnn_attention_unavailable() {
  static const std::string reason = "this build has no cuDNN";
  return reason;
}

bool cudnn_attention_takes(const AttentionPlan&, std::initializer_list<const Tensor*>) {
  return false;
}

void cudnn_attention_forward(const Tensor&, const Tensor&, const Tensor&, const AttentionPlan&,
                             Tensor&, Tensor&) {
  fail("[attention] {}", cudnn_attention_unavailable());
}

void cudnn_attention_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                              const Tensor&, const Tensor&, const AttentionPlan&, Tensor&, Tensor&,
                              Tensor&) {
  fail("[attention] {}", cudnn_attention_unavailable());
}

}  // namespace lh::cuda
