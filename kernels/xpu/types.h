// What kernels and their callers share in both worlds: bf16, small vectors, the stream handle.
// Light on purpose: launcher headers include this file and no CUDA header.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define XPU_HD __host__ __device__ __forceinline__
#else
#define XPU_HD inline
#endif

struct CUstream_st;  // what cudaStream_t points to

namespace xpu {

using Stream = CUstream_st*;  // equals cudaStream_t; the emulator's can record (emu/stream.h)

/// bfloat16 as bits, so that both compilers see the same type and no toolkit header is needed.
struct bf16 {
  std::uint16_t bits;
};

XPU_HD float to_float(float x) { return x; }

XPU_HD float to_float(bf16 x) {
  const std::uint32_t bits = static_cast<std::uint32_t>(x.bits) << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

template <class T>
XPU_HD T from_float(float x);

template <>
XPU_HD float from_float<float>(float x) {
  return x;
}

/// Round to nearest even; every NaN becomes 0x7fff, which is what cvt.rn.bf16.f32 gives.
template <>
XPU_HD bf16 from_float<bf16>(float x) {
  std::uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

/// Two bf16 in one register, `low` in the lower half: the operand format of mma and wgmma.
XPU_HD std::uint32_t pack(bf16 low, bf16 high) {
  return static_cast<std::uint32_t>(low.bits) | static_cast<std::uint32_t>(high.bits) << 16;
}

/// Two floats rounded to nearest even, as one instruction on a device.
XPU_HD std::uint32_t pack_rounded(float low, float high) {
#ifdef __CUDA_ARCH__
  std::uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
#else
  return pack(from_float<bf16>(low), from_float<bf16>(high));
#endif
}

/// N values that move as one aligned load or store (at most 16 bytes).
template <class T, int N>
struct alignas(sizeof(T) * N) Vec {
  static_assert(sizeof(T) * N <= 16, "one thread moves at most 16 bytes at a time");
  T v[N];
  XPU_HD T& operator[](int i) { return v[i]; }
  XPU_HD const T& operator[](int i) const { return v[i]; }
};

template <class A, class B>
XPU_HD constexpr A ceil_div(A a, B b) {
  return (a + b - 1) / b;
}

}  // namespace xpu
