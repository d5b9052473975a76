// Parts of the bf16 attention kernels: swizzled tiles in shared memory, their loads, and the two
// products every pass is made of. g = lane / 4, t = lane % 4 as in mma fragments.
#pragma once
#include "kernels/attention/mask.h"
#include "kernels/xpu/xpu.h"

namespace lh::kernels::softmax {

using xpu::bf16;

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;
constexpr float kInf = __builtin_huge_valf();

/// Offset of 16-byte chunk `chunk` of row `row` in a tile with rows of kD elements. The exclusive
/// or puts the same chunk of 8 consecutive rows, which one ldmatrix phase reads, in 8 different
/// groups of banks: a row is a multiple of 128 bytes, or an odd multiple of 64, where the row's
/// lowest bit already moves it by half.
template <int kD>
XPU_HD int chunk_offset(int row, int chunk) {
  static_assert(kD % 32 == 0);
  const int flip = kD % 64 == 0 ? row & 7 : row >> 1 & 3;
  return row * kD + (chunk ^ flip) * 8;
}

/// Starts copying rows [0, rows) of d elements; the rest of the kRows x kD tile becomes zero. The
/// block does it, or with kLanes = 32 one warp.
template <int kRows, int kD, int kLanes = kThreads>
__device__ inline void load_tile(bf16* tile, const bf16* global, std::int64_t stride, int rows,
                                 int d) {
  constexpr int kChunks = kD / 8;
#pragma unroll
  for (int i = threadIdx.x % kLanes; i < kRows * kChunks; i += kLanes) {
    const int row = i / kChunks, chunk = i % kChunks;
    const bool valid = row < rows && chunk * 8 < d;
    xpu::copy_async<16>(tile + chunk_offset<kD>(row, chunk),
                        valid ? global + row * stride + chunk * 8 : global, valid);
  }
}

/// Starts copying `rows` floats that lie `stride` apart; the rest of kRows becomes zero.
template <int kRows>
__device__ inline void load_column(float* column, const float* global, std::int64_t stride,
                                   int rows) {
  for (int i = threadIdx.x; i < kRows; i += kThreads) {
    xpu::copy_async<4>(column + i, i < rows ? global + i * stride : global, i < rows);
  }
}

/// Fragment a of rows [row, row + 16), elements [16 step, 16 step + 16).
template <int kD>
__device__ inline void load_a(std::uint32_t (&a)[4], const bf16* tile, int row, int step) {
  const int lane = threadIdx.x % 32;
  xpu::load_matrix_x4(a, tile + chunk_offset<kD>(row + lane % 16, 2 * step + lane / 16));
}

__device__ inline void mma_pair(float (&low)[4], float (&high)[4], const std::uint32_t (&a)[4],
                                const std::uint32_t (&b)[4]) {
  const std::uint32_t b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
  xpu::mma_bf16(low, a, b0);
  xpu::mma_bf16(high, a, b1);
}

/// One step of 16 in acc += a b^T: b is a tile of kN rows.
template <int kD, int kAtoms, int kN>
__device__ inline void multiply_step(float (&acc)[kAtoms][kN / 8][4],
                                     const std::uint32_t (&a)[kAtoms][4], const bf16* b, int step) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int n = 0; n < kN / 16; ++n) {
    std::uint32_t fragment[4];
    const int row = 16 * n + lane / 16 * 8 + lane % 8;
    xpu::load_matrix_x4(fragment, b + chunk_offset<kD>(row, 2 * step + lane / 8 % 2));
#pragma unroll
    for (int m = 0; m < kAtoms; ++m) mma_pair(acc[m][2 * n], acc[m][2 * n + 1], a[m], fragment);
  }
}

/// acc = a b^T with a: rows [row, row + 16 kAtoms) of a tile, or with an atom_step of their own, the
/// 16 rows of each atom from row + atom_step m on.
template <int kD, int kAtoms, int kN>
__device__ inline void multiply_rows(float (&acc)[kAtoms][kN / 8][4], const bf16* a, int row,
                                     const bf16* b, int atom_step = 16) {
#pragma unroll
  for (int m = 0; m < kAtoms; ++m) {
#pragma unroll
    for (int n = 0; n < kN / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) acc[m][n][i] = 0.0f;
    }
  }
#pragma unroll
  for (int step = 0; step < kD / 16; ++step) {
    std::uint32_t fragments[kAtoms][4];
#pragma unroll
    for (int m = 0; m < kAtoms; ++m) load_a<kD>(fragments[m], a, row + atom_step * m, step);
    multiply_step<kD, kAtoms, kN>(acc, fragments, b, step);
  }
}

/// acc += bf16(weights) b: weights are the accumulators of a kN-column product, b has kN rows.
template <int kD, int kAtoms, int kN>
__device__ inline void multiply_weights(float (&acc)[kAtoms][kD / 8][4],
                                        const float (&weights)[kAtoms][kN / 8][4], const bf16* b) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int step = 0; step < kN / 16; ++step) {
    std::uint32_t a[kAtoms][4];
#pragma unroll
    for (int m = 0; m < kAtoms; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* w = &weights[m][2 * step + i / 2][i % 2 * 2];
        a[m][i] = xpu::pack_rounded(w[0], w[1]);
      }
    }
#pragma unroll
    for (int n = 0; n < kD / 16; ++n) {
      std::uint32_t fragment[4];
      xpu::load_matrix_x4<true>(fragment,
                                b + chunk_offset<kD>(16 * step + lane % 16, 2 * n + lane / 16));
#pragma unroll
      for (int m = 0; m < kAtoms; ++m) mma_pair(acc[m][2 * n], acc[m][2 * n + 1], a[m], fragment);
    }
  }
}

/// Writes accumulators times row_factor, rounded, to rows [row, row + 16) of a swizzled tile.
template <int kD>
__device__ inline void stage_rows(bf16* tile, const float (&acc)[kD / 8][4], int row,
                                  const float (&row_factor)[2]) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int n = 0; n < kD / 8; ++n) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::uint32_t pair = xpu::pack_rounded(acc[n][2 * half] * row_factor[half],
                                                   acc[n][2 * half + 1] * row_factor[half]);
      bf16* p = tile + chunk_offset<kD>(row + g + 8 * half, n) + 2 * t;
      *reinterpret_cast<std::uint32_t*>(p) = pair;
    }
  }
}

/// Copies rows [row, row + count) of a staged tile to global memory, 16 bytes a time. One warp's
/// rows, after sync_warp.
template <int kD>
__device__ inline void store_rows(const bf16* tile, int row, int count, bf16* global,
                                  std::int64_t stride, int rows, int d) {
  constexpr int kChunks = kD / 8;
  for (int i = threadIdx.x % 32; i < count * kChunks; i += 32) {
    const int r = row + i / kChunks, chunk = i % kChunks;
    if (r < rows && chunk * 8 < d) {
      xpu::store_vec(global + r * stride + chunk * 8,
                     xpu::load_vec<8>(tile + chunk_offset<kD>(r, chunk)));
    }
  }
}

}  // namespace lh::kernels::softmax
