#include "backend/utility_gate.h"

#include "backend/cuda/kernel_call.h"
#include "kernels/elementwise/utility_gate.h"

namespace lh::cuda {
namespace {

template <typename T>
kernels::UtilityGateParams<kernel_t<T>> params(const Tensor& logits, const UtilityGate& gate) {
  kernels::UtilityGateParams<kernel_t<T>> p;
  p.logits = pointer<T>(logits);
  p.hard = gate.mode == GateMode::kHard;
  p.alpha = gate.mode == GateMode::kSoft ? 0.0f : static_cast<float>(gate.alpha);
  p.threshold = static_cast<float>(gate.threshold);
  p.size = logits.numel();
  return p;
}

}  // namespace

void utility_gate_forward(const Tensor& logits, const UtilityGate& gate, Tensor& bias) {
  check_contiguous(logits, "utility_gate", "logits");
  check_sum(bias, logits.shape(), logits.dtype(), "utility_gate", "bias");
  dispatch_kernel(logits.dtype(), "utility_gate", [&]<typename T>() {
    auto p = params<T>(logits, gate);
    p.bias = pointer<float>(bias);
    call("utility_gate", {&logits, &bias},
         [&](gpu::Stream stream) { kernels::utility_gate_fwd(p, stream); });
  });
}

void utility_gate_backward(const Tensor& logits, const UtilityGate& gate, const Tensor& dbias,
                           Tensor& d_logits) {
  check_contiguous(logits, "utility_gate_backward", "logits");
  check_sum(dbias, logits.shape(), logits.dtype(), "utility_gate_backward", "dbias");
  check_shape(d_logits, logits.shape(), "utility_gate_backward", "d_logits");
  check_dtype(d_logits, logits.dtype(), "utility_gate_backward", "d_logits");
  check_contiguous(d_logits, "utility_gate_backward", "d_logits");
  dispatch_kernel(logits.dtype(), "utility_gate_backward", [&]<typename T>() {
    auto p = params<T>(logits, gate);
    p.dbias = pointer<float>(dbias);
    p.d_logits = pointer<T>(d_logits);
    call("utility_gate_backward", {&logits, &dbias, &d_logits},
         [&](gpu::Stream stream) { kernels::utility_gate_bwd(p, stream); });
  });
}

}  // namespace lh::cuda
