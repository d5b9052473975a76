#include "backend/utility_gate.h"

#include <cmath>
#include <limits>

#include "backend/cpu/parallel.h"
#include "backend/operands.h"

namespace lh::cpu {
namespace {

template <typename Real>
Real sigmoid(Real x) {
  return 1 / (1 + std::exp(-x));
}

/// The gate before its logarithm, without the floor.
template <typename Real>
Real openness(Real u, const UtilityGate& gate) {
  if (gate.mode == GateMode::kSoft) return u;
  const auto alpha = static_cast<Real>(gate.alpha);
  return (1 - alpha) * u + (u >= static_cast<Real>(gate.threshold) ? alpha : Real(0));
}

constexpr double kFloor = 1e-8;

}  // namespace

void utility_gate_forward(const Tensor& logits, const UtilityGate& gate, Tensor& bias) {
  check_contiguous(logits, "utility_gate", "logits");
  check_sum(bias, logits.shape(), logits.dtype(), "utility_gate", "bias");
  dispatch_float(logits.dtype(), "utility_gate", [&]<typename T>() {
    using Real = accumulate_t<T>;
    const T* x = logits.data<T>();
    Real* out = bias.data<Real>();
    for_each_block(logits.numel(), kFlatBlock, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Real u = sigmoid(static_cast<Real>(x[i]));
        if (gate.mode == GateMode::kHard) {
          const bool kept = u >= static_cast<Real>(gate.threshold);
          out[i] = kept ? 0 : -std::numeric_limits<Real>::infinity();
        } else {
          out[i] = std::log(openness(u, gate) + static_cast<Real>(kFloor));
        }
      }
    });
  });
}

void utility_gate_backward(const Tensor& logits, const UtilityGate& gate, const Tensor& dbias,
                           Tensor& d_logits) {
  check_contiguous(logits, "utility_gate_backward", "logits");
  check_sum(dbias, logits.shape(), logits.dtype(), "utility_gate_backward", "dbias");
  check_shape(d_logits, logits.shape(), "utility_gate_backward", "d_logits");
  check_dtype(d_logits, logits.dtype(), "utility_gate_backward", "d_logits");
  check_contiguous(d_logits, "utility_gate_backward", "d_logits");
  dispatch_float(logits.dtype(), "utility_gate_backward", [&]<typename T>() {
    using Real = accumulate_t<T>;
    const T* x = logits.data<T>();
    const Real* g = dbias.data<Real>();
    T* dx = d_logits.data<T>();
    const Real slope = gate.mode == GateMode::kSoft     ? 1
                       : gate.mode == GateMode::kAnneal ? static_cast<Real>(1 - gate.alpha)
                                                        : 0;
    for_each_block(logits.numel(), kFlatBlock, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Real u = sigmoid(static_cast<Real>(x[i]));
        dx[i] = T(slope == 0 ? 0
                             : g[i] * slope * u * (1 - u) /
                                   (openness(u, gate) + static_cast<Real>(kFloor)));
      }
    });
  });
}

}  // namespace lh::cpu
