// One pass over memory per kernel; every element is computed in float (double for double).
#include "backend/cpu/simd/elementwise.h"

#include "backend/cpu/simd/vec.h"

namespace lh::cpu::LH_SIMD_NAMESPACE {
namespace {

template <typename V>
inline V sigmoid(V x) {
  return 1 / (1 + exponential(-x));
}

}  // namespace

template <typename T, typename S>
void add_scaled(const T* a, S alpha, const T* b, S beta, T* out, int64_t n) {
  for_lanes<T>(n, [&](int64_t i, auto tail) {
    store(out + i, alpha * load(a + i, tail) + beta * load(b + i, tail), tail);
  });
}

template <typename T, typename S>
void scale(const T* a, S alpha, T* out, int64_t n) {
  for_lanes<T>(n, [&](int64_t i, auto tail) { store(out + i, alpha * load(a + i, tail), tail); });
}

template <typename T>
void multiply(const T* a, const T* b, T* out, int64_t n) {
  for_lanes<T>(n, [&](int64_t i, auto tail) {
    store(out + i, load(a + i, tail) * load(b + i, tail), tail);
  });
}

template <typename T, typename S>
void accumulate(S* sum, const T* a, S alpha, int64_t n) {
  for_lanes<T>(n, [&](int64_t i, auto tail) {
    store(sum + i, load(sum + i, tail) + alpha * load(a + i, tail), tail);
  });
}

template <typename T>
void swiglu_forward(const T* gate, const T* up, T* y, int64_t n) {
  for_lanes<T>(n, [&](int64_t i, auto tail) {
    const auto g = load(gate + i, tail);
    store(y + i, g * sigmoid(g) * load(up + i, tail), tail);
  });
}

template <typename T>
void swiglu_backward(const T* gate, const T* up, const T* dy, T* d_gate, T* d_up, int64_t n) {
  for_lanes<T>(n, [&](int64_t i, auto tail) {
    const auto g = load(gate + i, tail);
    const auto u = load(up + i, tail);
    const auto d = load(dy + i, tail);
    const auto s = sigmoid(g);
    store(d_gate + i, d * u * s * (1 + g * (1 - s)), tail);  // silu' = s (1 + g (1 - s))
    store(d_up + i, d * g * s, tail);
  });
}

template <typename T>
void sigmoid_gate_forward(const T* x, const T* gate, T* y, int64_t n) {
  for_lanes<T>(n, [&](int64_t i, auto tail) {
    store(y + i, load(x + i, tail) * sigmoid(load(gate + i, tail)), tail);
  });
}

template <typename T>
void sigmoid_gate_backward(const T* x, const T* gate, const T* dy, T* dx, T* d_gate, int64_t n) {
  for_lanes<T>(n, [&](int64_t i, auto tail) {
    const auto v = load(x + i, tail);
    const auto d = load(dy + i, tail);
    const auto s = sigmoid(load(gate + i, tail));
    store(dx + i, d * s, tail);
    store(d_gate + i, d * v * s * (1 - s), tail);
  });
}

void convert(const float* src, uint16_t* dst, int64_t n) {
  for_lanes<float>(n, [&](int64_t i, auto tail) { store(dst + i, load(src + i, tail), tail); });
}

void convert(const uint16_t* src, float* dst, int64_t n) {
  for_lanes<float>(n, [&](int64_t i, auto tail) { store(dst + i, load(src + i, tail), tail); });
}

void exponentials(const float* x, float* y, int64_t n) {
  for_lanes<float>(n, [&](int64_t i, auto tail) {
    store(y + i, exponential(load(x + i, tail)), tail);
  });
}

#define LH_INSTANTIATE(T, S)                                                                      \
  template void add_scaled(const T*, S, const T*, S, T*, int64_t);                                \
  template void scale(const T*, S, T*, int64_t);                                                  \
  template void multiply(const T*, const T*, T*, int64_t);                                        \
  template void accumulate(S*, const T*, S, int64_t);                                             \
  template void swiglu_forward(const T*, const T*, T*, int64_t);                                  \
  template void swiglu_backward(const T*, const T*, const T*, T*, T*, int64_t);                   \
  template void sigmoid_gate_forward(const T*, const T*, T*, int64_t);                            \
  template void sigmoid_gate_backward(const T*, const T*, const T*, T*, T*, int64_t);
LH_INSTANTIATE(float, float)
LH_INSTANTIATE(uint16_t, float)
LH_INSTANTIATE(double, double)

}  // namespace lh::cpu::LH_SIMD_NAMESPACE
