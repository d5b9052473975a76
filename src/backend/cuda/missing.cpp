// Operations the CUDA backend does not have yet. A test lets this list only shrink
// (tests/backend/cuda_missing.sh).
#include "backend/attention.h"

namespace lh::cuda {

void attention_forward(const Tensor&, const Tensor&, const Tensor&, const AttentionPlan&, Tensor&,
                       Tensor&) {
  fail("[attention] has no CUDA implementation yet: use run.device: cpu");
}
void attention_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                        const Tensor&, const AttentionPlan&, Tensor&, Tensor&, Tensor&) {
  fail("[attention_backward] has no CUDA implementation yet: use run.device: cpu");
}

}  // namespace lh::cuda
