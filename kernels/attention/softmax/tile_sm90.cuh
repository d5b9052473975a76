// Parts of the Hopper attention kernels: tiles as the copy engine lays them in shared memory, their
// loads, and the products of a warpgroup with them.
#pragma once
#include "kernels/attention/mask.h"
#include "kernels/xpu/xpu.h"

namespace lh::kernels::softmax_sm90 {

using xpu::bf16;
using xpu::Mbarrier;
using xpu::TensorMap;

constexpr int kConsumers = 2;  // warpgroups with 64 rows each of the block's own tile
constexpr int kOwnRows = 64 * kConsumers;
constexpr int kThreads = 128 * (kConsumers + 1);
constexpr int kOwnBarrier = 3;   // named barriers 4 and 5: within each consumer
constexpr int kBothBarrier = 6;  // both consumers
constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
constexpr float kInf = __builtin_huge_valf();

/// kRows x kD in sub-tiles of 64 columns with the 128-byte swizzle; heads of 96 in three of 32
/// columns with the 64-byte one, which is as free of bank conflicts, so that nothing is padded.
template <int kRows_, int kD_>
struct Tile {
  static constexpr int kRows = kRows_, kD = kD_;
  static constexpr int kColumns = kD % 64 == 0 ? 64 : 32;  // of a sub-tile
  static constexpr int kRowBytes = 2 * kColumns;
  static constexpr int kSize = kRows * kD, kBytes = 2 * kSize;
  static_assert(kD % kColumns == 0);

  /// Starts loading (column, row) of the map on; rows and columns outside the matrix become zero.
  __device__ static void load(bf16* tile, const TensorMap& map, int column, int row,
                              Mbarrier* full) {
#pragma unroll
    for (int c = 0; c < kD / kColumns; ++c) {
      xpu::tma_load(tile + c * kRows * kColumns, map, column + c * kColumns, row, full);
    }
  }

  /// Operand of rows [row, ...), columns [16 step, 16 step + 16), the columns along K.
  __device__ static std::uint64_t inner(const bf16* tile, int row, int step) {
    constexpr int kSteps = kColumns / 16;
    return xpu::wgmma_operand<kRowBytes>(tile + step / kSteps * kRows * kColumns + row * kColumns +
                                         step % kSteps * 16);
  }
  /// Operand of rows [16 step, 16 step + 16), all columns, the rows along K.
  __device__ static std::uint64_t outer(const bf16* tile, int step) {
    return xpu::wgmma_operand<kRowBytes>(tile + step * 16 * kColumns, 8 * kRowBytes,
                                         kRows * kRowBytes);
  }

  /// Elements [8 chunk, 8 chunk + 8) of a row.
  __device__ static bf16* chunk(bf16* tile, int row, int chunk) {
    constexpr int kChunks = kColumns / 8;
    const int flip = kColumns == 64 ? row % 8 : row / 2 % 4;
    return tile + chunk / kChunks * kRows * kColumns + row * kColumns +
           ((chunk % kChunks) ^ flip) * 8;
  }
};

/// Map of [rows, heads, kD] for tiles of type T. A matrix without rows has none: then nothing is
/// visible, and the map is not used.
template <class T>
TensorMap tile_map(const bf16* base, int rows, int heads, std::int64_t stride) {
  if (rows == 0) return {};
  return xpu::make_tensor_map(base, 2, rows, static_cast<long>(heads) * T::kD, stride * 2, T::kRows,
                              T::kColumns);
}

/// The same of the copies of open keys or of their values, if there are any.
template <class T, class Params>
TensorMap open_map(const bf16* base, const Params& p) {
  if (!p.open.before) return {};
  return tile_map<T>(base, p.key_rows, p.kv_heads, static_cast<std::int64_t>(p.kv_heads) * T::kD);
}

/// acc = rows [row, row + 64) of a times b^T: one group of asynchronous products, to be waited for.
template <class A, class B>
__device__ inline void multiply_rows(float (&acc)[B::kRows / 2], const bf16* a, int row,
                                     const bf16* b) {
  xpu::wgmma_fence();
#pragma unroll
  for (int step = 0; step < A::kD / 16; ++step) {
    xpu::wgmma(acc, A::inner(a, row, step), B::inner(b, 0, step), step > 0);
  }
  xpu::wgmma_commit();
}

/// The accumulators of a product with kN columns, rounded, as left operands of steps of 16 columns.
template <int kN>
__device__ inline void pack_weights(std::uint32_t (&weights)[kN / 16][4],
                                    const float (&acc)[kN / 2]) {
#pragma unroll
  for (int step = 0; step < kN / 16; ++step) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      weights[step][r] = xpu::pack_rounded(acc[8 * step + 2 * r], acc[8 * step + 2 * r + 1]);
    }
  }
}

/// acc += weights b: one group of asynchronous products.
template <class B>
__device__ inline void multiply_weights(float (&acc)[B::kD / 2],
                                        const std::uint32_t (&weights)[B::kRows / 16][4],
                                        const bf16* b) {
  xpu::wgmma_fence();
#pragma unroll
  for (int step = 0; step < B::kRows / 16; ++step) {
    xpu::wgmma<xpu::kOuter>(acc, weights[step], B::outer(b, step), true);
  }
  xpu::wgmma_commit();
}

/// Clears rows [from, kRows) of the present tiles for both consumers, which all call it: a box brings
/// along what lies behind a segment, and that may be no number, which a weight of 0 does not hide.
template <class T, int kTiles>
__device__ inline void clear_rows(bf16* const (&tiles)[kTiles], int from) {
  constexpr int kChunks = T::kD / 8;
#pragma unroll 1
  for (int i = threadIdx.x - 128; i < (T::kRows - from) * kChunks; i += 128 * kConsumers) {
#pragma unroll
    for (bf16* const tile : tiles) {
      xpu::store_vec(T::chunk(tile, from + i / kChunks, i % kChunks), xpu::Vec<bf16, 8>{});
    }
  }
  xpu::fence_proxy_async();
  xpu::named_sync(kBothBarrier, 128 * kConsumers);
}

/// Stores a consumer's 64 rows from row `row` on, times factor0 and (rows 8 further) factor1, cut
/// at row `rows` of the tile: by way of the tile, whose rows nobody else reads, in whole 16-byte
/// pieces.
template <class T>
__device__ inline void store_rows(bf16* tile, const float (&acc)[T::kD / 2], int row, float factor0,
                                  float factor1, bf16* global, std::int64_t stride, int rows) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int warp_row = row + threadIdx.x % 128 / 32 * 16;
  xpu::named_sync(kOwnBarrier + threadIdx.x / 128, 128);  // all four warps have used the tile
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float factor = half == 0 ? factor0 : factor1;
#pragma unroll
    for (int j = 0; j < T::kD / 8; ++j) {
      *reinterpret_cast<std::uint32_t*>(T::chunk(tile, warp_row + g + 8 * half, j) + 2 * t) =
          xpu::pack_rounded(acc[4 * j + 2 * half] * factor, acc[4 * j + 2 * half + 1] * factor);
    }
  }
  xpu::sync_warp();
  constexpr int kChunks = T::kD / 8;
#pragma unroll 4
  for (int i = lane; i < 16 * kChunks; i += 32) {
    const int r = warp_row + i / kChunks, chunk = i % kChunks;
    if (r < rows) {
      xpu::store_vec(global + r * stride + 8 * chunk, xpu::load_vec<8>(T::chunk(tile, r, chunk)));
    }
  }
}

/// What a map and whole 16-byte pieces ask of rows.
inline bool aligned(const void* base, std::int64_t stride) {
  return reinterpret_cast<std::uintptr_t>(base) % 16 == 0 && stride % 8 == 0;
}

template <class Params>
bool heads_supported(const Params& p) {
  return (p.head_dim == 64 || p.head_dim == 96 || p.head_dim == 128) &&
         p.value_dim == p.head_dim && p.heads > 0 && p.kv_heads > 0 && p.heads % p.kv_heads == 0;
}

/// launch.operator()<kD>() for a supported head_dim.
template <class Launch>
void with_head_dim(int head_dim, const Launch& launch) {
  if (head_dim == 64) {
    launch.template operator()<64>();
  } else if (head_dim == 96) {
    launch.template operator()<96>();
  } else {
    launch.template operator()<128>();
  }
}

}  // namespace lh::kernels::softmax_sm90
