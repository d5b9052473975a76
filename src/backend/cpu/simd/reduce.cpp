#include "backend/cpu/simd/reduce.h"

#include "backend/cpu/simd/vec.h"

namespace lh::cpu::LH_SIMD_NAMESPACE {
namespace {

typedef double WideD __attribute__((vector_size(2 * kVectorBytes)));

// Two registers of doubles for every register of floats.
inline WideD widen(VecF v) {
  return __builtin_convertvector(v, WideD);
}
inline VecD widen(VecD v) {
  return v;
}

template <typename T, typename F>
inline double sum_of(const T* x, int64_t n, F&& term) {
  decltype(widen(vec_t<T>{})) sums{};
  for_lanes<T>(n, [&](int64_t i, auto tail) { sums += term(widen(load(x + i, tail))); });
  return sum_lanes(sums);
}

}  // namespace

template <typename T>
double sum_of_squares(const T* x, int64_t n) {
  return sum_of(x, n, [](auto v) { return v * v; });
}

template <typename T>
double sum(const T* x, int64_t n) {
  return sum_of(x, n, [](auto v) { return v; });
}

template <typename T>
int64_t count_non_finite(const T* x, int64_t n) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (sizeof(T) == 2) {
      count += (x[i] & 0x7f80u) == 0x7f80u;
    } else if constexpr (sizeof(T) == 4) {
      count += (bits_as<uint32_t>(x[i]) & 0x7f800000u) == 0x7f800000u;
    } else {
      constexpr uint64_t kExponent = 0x7ff0000000000000u;
      count += (bits_as<uint64_t>(x[i]) & kExponent) == kExponent;
    }
  }
  return count;
}

#define LH_INSTANTIATE(T)                            \
  template double sum_of_squares(const T*, int64_t); \
  template double sum(const T*, int64_t);            \
  template int64_t count_non_finite(const T*, int64_t);
LH_INSTANTIATE(float)
LH_INSTANTIATE(uint16_t)
LH_INSTANTIATE(double)

}  // namespace lh::cpu::LH_SIMD_NAMESPACE
