// Emulator: warp and block primitives, vector access. Same calls as device/threads.cuh.
#pragma once
#include <cmath>

#include "kernels/xpu/emu/where.h"
#include "kernels/xpu/types.h"

namespace xpu {

constexpr unsigned kFullMask = 0xffffffffu;

void sync_block(Where where = Where::here());
void sync_warp(unsigned mask = kFullMask, Where where = Where::here());
void named_sync(int id, int threads, Where where = Where::here());
void named_arrive(int id, int threads, Where where = Where::here());
unsigned ballot(bool x, unsigned mask = kFullMask, Where where = Where::here());

namespace emu {
enum class Shuffle { kIndex, kXor, kUp, kDown };
std::uint64_t shuffle(Shuffle kind, std::uint64_t bits, int operand, unsigned mask, Where where);
void check_aligned(const void* p, std::size_t bytes, bool write, Where where);

template <class T>
T shuffle_as(Shuffle kind, T x, int operand, unsigned mask, Where where) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  std::uint64_t bits = 0;
  memcpy(&bits, &x, sizeof x);
  bits = shuffle(kind, bits, operand, mask, where);
  memcpy(&x, &bits, sizeof x);
  return x;
}
}  // namespace emu

template <class T>
T shuffle(T x, int lane, unsigned mask = kFullMask, Where where = Where::here()) {
  return emu::shuffle_as(emu::Shuffle::kIndex, x, lane, mask, where);
}
template <class T>
T shuffle_xor(T x, int bits, unsigned mask = kFullMask, Where where = Where::here()) {
  return emu::shuffle_as(emu::Shuffle::kXor, x, bits, mask, where);
}
template <class T>
T shuffle_up(T x, int delta, unsigned mask = kFullMask, Where where = Where::here()) {
  return emu::shuffle_as(emu::Shuffle::kUp, x, delta, mask, where);
}
template <class T>
T shuffle_down(T x, int delta, unsigned mask = kFullMask, Where where = Where::here()) {
  return emu::shuffle_as(emu::Shuffle::kDown, x, delta, mask, where);
}

namespace emu {
float atomic_add(float* p, float x, Where where);
int atomic_add(int* p, int x, Where where);
unsigned atomic_add(unsigned* p, unsigned x, Where where);
}  // namespace emu

/// Out of line: to the race detector an atomic is not a read and a write.
template <class T>
T atomic_add(T* p, T x, Where where = Where::here()) {
  return emu::atomic_add(p, x, where);
}
void fence_device();

template <int N, class T>
Vec<T, N> load_vec(const T* p, Where where = Where::here()) {
  emu::check_aligned(p, sizeof(Vec<T, N>), false, where);
  return *reinterpret_cast<const Vec<T, N>*>(p);
}
template <int N, class T>
void store_vec(T* p, const Vec<T, N>& x, Where where = Where::here()) {
  emu::check_aligned(p, sizeof(Vec<T, N>), true, where);
  *reinterpret_cast<Vec<T, N>*>(p) = x;
}

inline float rsqrt(float x) { return 1.0f / std::sqrt(x); }
inline float fast_exp(float x) { return std::exp(x); }
inline float fast_exp2(float x) { return std::exp2(x); }

}  // namespace xpu
