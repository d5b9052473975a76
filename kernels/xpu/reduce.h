// Sums and maxima over a warp and a block, built on the wrappers. The order of additions is fixed,
// so results are bitwise repeatable.
#pragma once
// Included by xpu.h, after the wrappers.

namespace xpu {

__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += shuffle_xor(x, offset);
  return x;
}

__device__ inline float warp_max(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, shuffle_xor(x, offset));
  return x;
}

/// Sum over the block, returned to every thread. `scratch` is shared, one float per warp. All
/// threads of a one-dimensional block of whole warps must call it. Two barriers: the first makes
/// the partial sums visible, the second lets the caller reuse `scratch` at once.
__device__ inline float block_sum(float x, float* scratch) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  x = warp_sum(x);
  if (lane == 0) scratch[warp] = x;
  sync_block();
  x = warp_sum(lane < warps ? scratch[lane] : 0.0f);
  sync_block();
  return x;
}

}  // namespace xpu
