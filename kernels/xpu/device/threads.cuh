// Device side: warp and block primitives, vector access, a few functions of the special unit.
#pragma once
#include "kernels/xpu/types.h"

namespace xpu {

constexpr unsigned kFullMask = 0xffffffffu;

__device__ __forceinline__ void sync_block() { __syncthreads(); }
__device__ __forceinline__ void sync_warp(unsigned mask = kFullMask) { __syncwarp(mask); }

/// Named barrier 1..15 among `threads` threads (whole warps); barrier 0 is sync_block's.
__device__ __forceinline__ void named_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

template <class T>
__device__ __forceinline__ T shuffle(T x, int lane, unsigned mask = kFullMask) {
  return __shfl_sync(mask, x, lane);
}
template <class T>
__device__ __forceinline__ T shuffle_xor(T x, int bits, unsigned mask = kFullMask) {
  return __shfl_xor_sync(mask, x, bits);
}
template <class T>
__device__ __forceinline__ T shuffle_up(T x, int delta, unsigned mask = kFullMask) {
  return __shfl_up_sync(mask, x, delta);
}
template <class T>
__device__ __forceinline__ T shuffle_down(T x, int delta, unsigned mask = kFullMask) {
  return __shfl_down_sync(mask, x, delta);
}
__device__ __forceinline__ unsigned ballot(bool x, unsigned mask = kFullMask) {
  return __ballot_sync(mask, x);
}

/// Returns the old value. Relaxed: blocks hand memory over with a fence before one block's atomic
/// and a fence after the other's, at one address.
template <class T>
__device__ __forceinline__ T atomic_add(T* p, T x) {
  return atomicAdd(p, x);
}
/// Covers what the thread knows to have happened: after a barrier, the writes of the whole block.
__device__ __forceinline__ void fence_device() { __threadfence(); }

/// N values with one instruction; p must be aligned to sizeof(T) * N.
template <int N, class T>
__device__ __forceinline__ Vec<T, N> load_vec(const T* p) {
  return *reinterpret_cast<const Vec<T, N>*>(p);
}
template <int N, class T>
__device__ __forceinline__ void store_vec(T* p, const Vec<T, N>& x) {
  *reinterpret_cast<Vec<T, N>*>(p) = x;
}

__device__ __forceinline__ float rsqrt(float x) { return ::rsqrtf(x); }
/// e^x and 2^x on the special unit: about 2 ulp for moderate x.
__device__ __forceinline__ float fast_exp(float x) { return __expf(x); }
__device__ __forceinline__ float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace xpu
