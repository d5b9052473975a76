// Sums and maxima over a warp and a block, built on the wrappers. The order of additions is fixed,
// so results are bitwise repeatable.
#pragma once
// Included by xpu.h, after the wrappers.

namespace xpu {

template <class T>
__device__ inline T warp_sum(T x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += shuffle_xor(x, offset);
  return x;
}

__device__ inline float warp_max(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, shuffle_xor(x, offset));
  return x;
}

/// Sum over the block, returned to every thread. `scratch` is shared, one T per warp. All
/// threads of a one-dimensional block of whole warps must call it. Two barriers: the first makes
/// the partial sums visible, the second lets the caller reuse `scratch` at once.
template <class T>
__device__ inline T block_sum(T x, T* scratch) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  x = warp_sum(x);
  if (lane == 0) scratch[warp] = x;
  sync_block();
  x = warp_sum(lane < warps ? scratch[lane] : T(0));
  sync_block();
  return x;
}

/// Maximum over the block; otherwise as block_sum.
__device__ inline float block_max(float x, float* scratch) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  x = warp_max(x);
  if (lane == 0) scratch[warp] = x;
  sync_block();
  x = warp_max(scratch[lane < warps ? lane : 0]);
  sync_block();
  return x;
}

}  // namespace xpu
