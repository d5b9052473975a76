// Utility gate: u = sigmoid(x), o = (1 - alpha) u + alpha [u >= threshold], bias = log(o + 1e-8);
//   dx = dbias (1 - alpha) u (1 - u) / (o + 1e-8).
//   Hard: bias = u >= threshold ? 0 : -inf, dx = 0.
// Plan: one thread per group of 4 elements; nothing is kept.
// Numerics: fp32 with the accurate exponential and logarithm. Determinism: bitwise.
// Roofline: memory, 6 bytes per bf16 logit forward, 8 backward; 131072 tokens x 8 heads take 1.3
//   and 1.7 us at 4.8 TB/s, less than a launch. An unmeasured estimate.
#include "kernels/elementwise/utility_gate.h"

#include <cmath>

#include "kernels/elementwise/map.h"

namespace lh::kernels {

namespace {

constexpr int kGroup = 4;
constexpr float kFloor = 1e-8f;

/// o of the formula above.
template <class T>
__device__ inline float openness(const UtilityGateParams<T>& p, float u) {
  return (1.0f - p.alpha) * u + (u >= p.threshold ? p.alpha : 0.0f);
}

template <class T>
struct UtilityGateFwd {
  UtilityGateParams<T> p;
  template <int N>
  __device__ void at(std::int64_t i) const {
    float x[N];
    load<N>(p.logits + i, x);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float u = 1.0f / (1.0f + expf(-x[j]));
      x[j] = p.hard ? (u >= p.threshold ? 0.0f : -INFINITY) : logf(openness(p, u) + kFloor);
    }
    store<N>(p.bias + i, x);
  }
};

template <class T>
struct UtilityGateBwd {
  UtilityGateParams<T> p;
  template <int N>
  __device__ void at(std::int64_t i) const {
    float x[N], g[N];
    load<N>(p.logits + i, x);
    load<N>(p.dbias + i, g);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float u = 1.0f / (1.0f + expf(-x[j]));
      const float slope = (1.0f - p.alpha) * u * (1.0f - u) / (openness(p, u) + kFloor);
      x[j] = p.hard ? 0.0f : g[j] * slope;
    }
    store<N>(p.d_logits + i, x);
  }
};

}  // namespace

template <class T>
void utility_gate_fwd(const UtilityGateParams<T>& p, xpu::Stream stream) {
  map<kGroup>(UtilityGateFwd<T>{p}, p.size, aligned16(p.logits) && aligned16(p.bias), stream);
}

template <class T>
void utility_gate_bwd(const UtilityGateParams<T>& p, xpu::Stream stream) {
  map<kGroup>(UtilityGateBwd<T>{p}, p.size,
              aligned16(p.logits) && aligned16(p.dbias) && aligned16(p.d_logits), stream);
}

#define LH_INSTANTIATE(T)                                                    \
  template void utility_gate_fwd(const UtilityGateParams<T>&, xpu::Stream);  \
  template void utility_gate_bwd(const UtilityGateParams<T>&, xpu::Stream);
LH_INSTANTIATE(float)
LH_INSTANTIATE(xpu::bf16)
#undef LH_INSTANTIATE

}  // namespace lh::kernels
