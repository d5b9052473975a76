#include "backend/utility_gate.h"

#include "backend/cuda/kernel_call.h"
#include "kernels/elementwise/utility_gate.h"

namespace lh::cuda {
namespace {

kernels::UtilityGateMode mode_of(GateMode mode) {
  switch (mode) {
    case GateMode::kSoft:
      return kernels::UtilityGateMode::kSoft;
    case GateMode::kSample:
      return kernels::UtilityGateMode::kSample;
    case GateMode::kAnneal:
      return kernels::UtilityGateMode::kAnneal;
    case GateMode::kHard:
      return kernels::UtilityGateMode::kHard;
  }
  return kernels::UtilityGateMode::kHard;
}

template <typename T>
kernels::UtilityGateParams<kernel_t<T>> params(const Tensor& logits, const UtilityGate& gate) {
  kernels::UtilityGateParams<kernel_t<T>> p;
  p.logits = pointer<T>(logits);
  p.rows = gate.rows.defined() ? pointer<int64_t>(gate.rows) : nullptr;
  p.mode = mode_of(gate.mode);
  p.alpha = static_cast<float>(gate.alpha);
  p.threshold = static_cast<float>(gate.threshold);
  p.clip = static_cast<float>(gate.clip);
  p.weighted = gate.weighted;
  p.pull = static_cast<float>(gate.pull);
  p.draw_key = gate.draw_key;
  p.heads = logits.size(1);
  p.size = logits.numel();
  return p;
}

}  // namespace

void utility_gate_forward(const Tensor& logits, const UtilityGate& gate, Tensor& bias) {
  check_utility_gate(logits, gate, "utility_gate");
  check_sum(bias, logits.shape(), logits.dtype(), "utility_gate", "bias");
  dispatch_kernel(logits.dtype(), "utility_gate", [&]<typename T>() {
    auto p = params<T>(logits, gate);
    p.bias = pointer<float>(bias);
    call("utility_gate", {&logits, &gate.rows, &bias},
         [&](gpu::Stream stream) { kernels::utility_gate_fwd(p, stream); });
  });
}

void utility_gate_backward(const Tensor& logits, const UtilityGate& gate, const Tensor& dbias,
                           Tensor& d_logits) {
  check_utility_gate(logits, gate, "utility_gate_backward");
  check_sum(dbias, logits.shape(), logits.dtype(), "utility_gate_backward", "dbias");
  check_shape(d_logits, logits.shape(), "utility_gate_backward", "d_logits");
  check_dtype(d_logits, logits.dtype(), "utility_gate_backward", "d_logits");
  check_contiguous(d_logits, "utility_gate_backward", "d_logits");
  dispatch_kernel(logits.dtype(), "utility_gate_backward", [&]<typename T>() {
    auto p = params<T>(logits, gate);
    p.dbias = pointer<float>(dbias);
    p.d_logits = pointer<T>(d_logits);
    call("utility_gate_backward", {&logits, &gate.rows, &dbias, &d_logits},
         [&](gpu::Stream stream) { kernels::utility_gate_bwd(p, stream); });
  });
}

void utility_values(const Tensor& logits, const UtilityGate& gate, Tensor& u) {
  check_utility_gate(logits, gate, "utility_values");
  check_sum(u, logits.shape(), logits.dtype(), "utility_values", "u");
  dispatch_kernel(logits.dtype(), "utility_values", [&]<typename T>() {
    auto p = params<T>(logits, gate);
    p.bias = pointer<float>(u);
    call("utility_values", {&logits, &gate.rows, &u},
         [&](gpu::Stream stream) { kernels::utility_values(p, stream); });
  });
}

}  // namespace lh::cuda
