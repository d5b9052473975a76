#include "backend/cpu/simd/rope.h"

#include "backend/cpu/simd/vec.h"

namespace lh::cpu::LH_SIMD_NAMESPACE {

template <typename T, typename S>
void rope(const T* x, const S* cosines, const S* sines, S sign, T* y, int64_t heads, int64_t d) {
  const int64_t half = d / 2;
  for (int64_t head = 0; head < heads; ++head, x += d, y += d) {
    for_lanes<T>(half, [&](int64_t i, auto tail) {
      const auto a = load(x + i, tail);  // both halves are read before y, which may be x
      const auto b = load(x + half + i, tail);
      const auto c = load(cosines + i, tail);
      const auto s = load(sines + i, tail) * sign;
      store(y + i, a * c - b * s, tail);
      store(y + half + i, b * c + a * s, tail);
    });
  }
}

#define LH_INSTANTIATE(T, S) \
  template void rope(const T*, const S*, const S*, S, T*, int64_t, int64_t);
LH_INSTANTIATE(float, float)
LH_INSTANTIATE(uint16_t, float)
LH_INSTANTIATE(double, double)

}  // namespace lh::cpu::LH_SIMD_NAMESPACE
