// Vectors of one register for kernels in this folder: loads and stores that convert, tails, sums,
// and exp. Compiled once per instruction-set level (simd.h), so everything is in an anonymous
// namespace. Element types are float, double and uint16_t, which holds the bits of a bfloat16;
// arithmetic on bfloat16 is done in float.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lh::cpu::LH_SIMD_NAMESPACE {
namespace {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

typedef float VecF __attribute__((vector_size(kVectorBytes)));
typedef int32_t VecI __attribute__((vector_size(kVectorBytes)));
typedef uint32_t VecU __attribute__((vector_size(kVectorBytes)));
typedef double VecD __attribute__((vector_size(kVectorBytes)));
typedef uint16_t HalfU16 __attribute__((vector_size(kVectorBytes / 2)));
typedef float HalfF __attribute__((vector_size(kVectorBytes / 2)));

/// How T is computed with: `Scalar` for sums, `Vec` for a register of kLanes elements.
template <typename T>
struct Compute {
  using Scalar = float;
  using Vec = VecF;
  static constexpr int kLanes = kVectorBytes / 4;
};
template <>
struct Compute<double> {
  using Scalar = double;
  using Vec = VecD;
  static constexpr int kLanes = kVectorBytes / 8;
};
template <typename T>
using scalar_t = typename Compute<T>::Scalar;
template <typename T>
using vec_t = typename Compute<T>::Vec;

template <typename To, typename From>
inline To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// Every load and store takes a tail: Full for a whole register, or Part for its first lanes.
struct Full {};
struct Part {
  int count;
};

inline VecF load(const float* p, Full) {
  VecF v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline VecD load(const double* p, Full) {
  VecD v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline VecF load(const uint16_t* p, Full) {
#if defined(__AVX512F__)
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return bits_as<VecF>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
#elif defined(__AVX2__)
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return bits_as<VecF>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
#else
  HalfU16 half;
  std::memcpy(&half, p, sizeof half);
  return bits_as<VecF>(__builtin_convertvector(half, VecU) << 16);
#endif
}

inline void store(float* p, VecF v, Full) {
  std::memcpy(p, &v, sizeof v);
}
inline void store(double* p, VecD v, Full) {
  std::memcpy(p, &v, sizeof v);
}
/// Rounds to nearest, ties to even; NaN stays NaN.
inline void store(uint16_t* p, VecF v, Full) {
  const VecU u = bits_as<VecU>(v);
  const VecU rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const VecU quiet = (u >> 16) | 0x40u;
  const VecU result = (u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded;
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtepi32_epi16(bits_as<__m512i>(result)));
#elif defined(__AVX2__)
  const __m256i wide = bits_as<__m256i>(result);
  const __m128i low = _mm256_castsi256_si128(wide), high = _mm256_extracti128_si256(wide, 1);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packus_epi32(low, high));
#else
  const HalfU16 half = __builtin_convertvector(result, HalfU16);
  std::memcpy(p, &half, sizeof half);
#endif
}

/// Lanes beyond the count are 0.
template <typename T>
inline vec_t<T> load(const T* p, Part tail) {
  T lanes[Compute<T>::kLanes] = {};
  std::memcpy(lanes, p, static_cast<size_t>(tail.count) * sizeof(T));
  return load(lanes, Full{});
}
template <typename T>
inline void store(T* p, vec_t<T> v, Part tail) {
  T lanes[Compute<T>::kLanes];
  store(lanes, v, Full{});
  std::memcpy(p, lanes, static_cast<size_t>(tail.count) * sizeof(T));
}

/// Calls body(i, tail) for i = 0, kLanes, ... up to n; T only sets the number of lanes.
template <typename T, typename F>
inline __attribute__((always_inline)) void for_lanes(int64_t n, F&& body) {
  constexpr int kLanes = Compute<T>::kLanes;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, Full{});
  if (i < n) body(i, Part{static_cast<int>(n - i)});
}

template <typename V, typename S>
inline V splat(S value) {
  return V{} + value;
}

/// Sum of the lanes, pairwise in a fixed order.
template <typename V>
inline auto sum_lanes(V v) {
  constexpr int kLanes = sizeof(V) / sizeof(v[0]);
  std::remove_reference_t<decltype(v[0])> lanes[kLanes];
  std::memcpy(lanes, &v, sizeof v);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

#if defined(__AVX512F__) || defined(__AVX2__)
/// The same order in registers: dot products of short rows spend their time here.
inline float sum_lanes(VecF v) {
#if defined(__AVX512F__)
  const __m512 whole = bits_as<__m512>(v);
  const __m256 half = _mm256_add_ps(
      _mm512_castps512_ps256(whole),
      _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xf, _mm512_castps_pd(whole), 1)));
#else
  const __m256 half = bits_as<__m256>(v);
#endif
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
#endif

template <typename V>
inline auto max_lanes(V v) {
  auto result = v[0];
  for (size_t i = 1; i < sizeof(V) / sizeof(v[0]); ++i) result = v[i] > result ? v[i] : result;
  return result;
}

/// Keeps the lanes of `v` that the tail covers, `other` elsewhere.
template <typename V>
inline V blend_tail(V v, V, Full) {
  return v;
}
template <typename V>
inline V blend_tail(V v, V other, Part tail) {
  for (int i = tail.count; i < static_cast<int>(sizeof(V) / sizeof(v[0])); ++i) v[i] = other[i];
  return v;
}

inline VecF square_root(VecF v) {
#if defined(__AVX512F__)
  return _mm512_sqrt_ps(v);
#elif defined(__AVX2__)
  return _mm256_sqrt_ps(v);
#else
  for (int i = 0; i < Compute<float>::kLanes; ++i) v[i] = __builtin_sqrtf(v[i]);
  return v;
#endif
}
inline VecD square_root(VecD v) {
  for (int i = 0; i < Compute<double>::kLanes; ++i) v[i] = __builtin_sqrt(v[i]);
  return v;
}

/// e^x, error below 1.5 units in the last place for normal results (half a denormal step more for
/// denormal ones); 0 and inf beyond the range; NaN stays NaN. x = n ln 2 + r, |r| <= ln 2 / 2,
/// e^r = 1 + r + r^2 p(r) with p the minimax polynomial of relative error 2^-34.
inline VecF exponential(VecF x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  // A comparison with NaN is false, so NaN passes both bounds.
  x = x < -104.5f ? splat<VecF>(-104.5f) : x;
  x = x > 89.5f ? splat<VecF>(89.5f) : x;
  const VecF shifted = x * 1.44269504f + kRound;
  const VecF n = shifted - kRound;
  const VecI power = bits_as<VecI>(shifted) - bits_as<VecI>(splat<VecF>(kRound));
  VecF r = x - n * 0.693359375f;     // 10 bits: the product is exact
  r = r - n * -2.12194440e-4f;       // ln 2 minus the constant above
  VecF p = splat<VecF>(1.9782218e-4f);
  p = p * r + 1.3943226e-3f;
  p = p * r + 8.3335100e-3f;
  p = p * r + 4.1666321e-2f;
  p = p * r + 1.6666666e-1f;
  p = p * r + 5.0000001e-1f;
  p = p * (r * r) + r + 1.0f;
  // 2^n in two factors, so that results near the ends of the range stay representable.
  const VecI half = power >> 1;
  const VecF scale_a = bits_as<VecF>((half + 127) << 23);
  const VecF scale_b = bits_as<VecF>((power - half + 127) << 23);
  return p * scale_a * scale_b;
}
/// f64 serves gradient checks: exact rather than fast.
inline VecD exponential(VecD x) {
  for (int i = 0; i < Compute<double>::kLanes; ++i) x[i] = __builtin_exp(x[i]);
  return x;
}

}  // namespace
}  // namespace lh::cpu::LH_SIMD_NAMESPACE
