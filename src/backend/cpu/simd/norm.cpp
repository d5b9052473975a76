// Each row is read from memory once; the second sweep over it hits the first-level cache.
#include "backend/cpu/simd/norm.h"

#include "backend/cpu/simd/vec.h"

namespace lh::cpu::LH_SIMD_NAMESPACE {

template <typename T, typename S>
void rms_norm_forward(const T* x, const S* weight, S eps, T* y, S* rstd, int64_t rows, int64_t d) {
  for (int64_t row = 0; row < rows; ++row, x += d, y += d) {
    vec_t<T> squares{};
    for_lanes<T>(d, [&](int64_t i, auto tail) {
      const auto v = load(x + i, tail);
      squares += v * v;
    });
    const S mean = sum_lanes(squares) / static_cast<S>(d);
    const S r = S{1} / static_cast<S>(__builtin_sqrt(static_cast<double>(mean + eps)));
    rstd[row] = r;
    for_lanes<T>(d, [&](int64_t i, auto tail) {
      store(y + i, load(x + i, tail) * r * load(weight + i, tail), tail);
    });
  }
}

// With n = x rstd (the normalised row) and g = dy weight:
//   dx = rstd (g - n mean(g n)),  d_weight += dy n.
template <typename T, typename S>
void rms_norm_backward(const T* x, const S* weight, const S* rstd, const T* dy, T* dx,
                       bool accumulate_dx, S* d_weight, int64_t rows, int64_t d) {
  for (int64_t row = 0; row < rows; ++row, x += d, dy += d, dx += d) {
    const S r = rstd[row];
    vec_t<T> dot{};
    for_lanes<T>(d, [&](int64_t i, auto tail) {
      const auto n = load(x + i, tail) * r;
      const auto g = load(dy + i, tail);
      store(d_weight + i, load(d_weight + i, tail) + g * n, tail);
      dot += g * load(weight + i, tail) * n;
    });
    const S mean = sum_lanes(dot) / static_cast<S>(d);
    const auto gradient = [&](int64_t i, auto tail) {
      const auto n = load(x + i, tail) * r;
      return r * (load(dy + i, tail) * load(weight + i, tail) - n * mean);
    };
    if (accumulate_dx) {
      for_lanes<T>(d, [&](int64_t i, auto tail) {
        store(dx + i, load(dx + i, tail) + gradient(i, tail), tail);
      });
    } else {
      for_lanes<T>(d, [&](int64_t i, auto tail) { store(dx + i, gradient(i, tail), tail); });
    }
  }
}

#define LH_INSTANTIATE(T, S)                                                                 \
  template void rms_norm_forward(const T*, const S*, S, T*, S*, int64_t, int64_t);           \
  template void rms_norm_backward(const T*, const S*, const S*, const T*, T*, bool, S*, int64_t, \
                                  int64_t);
LH_INSTANTIATE(float, float)
LH_INSTANTIATE(uint16_t, float)
LH_INSTANTIATE(double, double)

}  // namespace lh::cpu::LH_SIMD_NAMESPACE
