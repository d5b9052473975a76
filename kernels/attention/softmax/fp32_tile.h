// Parts of the fp32 attention kernels: tiles of 32 rows in shared memory and the two products. 256
// threads; thread (y, x) = (tid / 16, tid % 16) owns rows y and y + 16 of a product, columns x and
// x + 16 of scores, and columns 4 x + 64 c of outputs. So a row belongs to 16 neighbouring lanes.
#pragma once
#include "kernels/attention/mask.h"
#include "kernels/xpu/xpu.h"

namespace lh::kernels::softmax::fp32 {

constexpr int kTile = 32;
constexpr int kThreads = 256;
constexpr int kPad = 4;  // floats after a row: rows 1 apart start 4 banks apart
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;
constexpr float kInf = __builtin_huge_valf();

XPU_HD int tile_floats(int d) { return kTile * (d + kPad); }

__device__ inline int own_y() { return static_cast<int>(threadIdx.x) / 16; }
__device__ inline int own_x() { return static_cast<int>(threadIdx.x) % 16; }

/// Rows [0, rows) of d floats, `stride` apart; the rest of the tile becomes zero.
__device__ inline void load_tile(float* tile, const float* global, std::int64_t stride, int rows,
                                 int d) {
  for (int i = threadIdx.x; i < kTile * d / 4; i += kThreads) {
    const int row = i / (d / 4), column = i % (d / 4) * 4;
    const auto x = row < rows ? xpu::load_vec<4>(global + row * stride + column)
                              : xpu::Vec<float, 4>{};
    xpu::store_vec(tile + row * (d + kPad) + column, x);
  }
}

/// acc[i][j] = row y + 16 i of a times row x + 16 j of b.
__device__ inline void dot(float (&acc)[2][2], const float* a, const float* b, int d) {
  const float* a_row = a + own_y() * (d + kPad);
  const float* b_row = b + own_x() * (d + kPad);
  acc[0][0] = acc[0][1] = acc[1][0] = acc[1][1] = 0.0f;
#pragma unroll 2
  for (int k = 0; k < d; k += 4) {
    xpu::Vec<float, 4> left[2], right[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      left[i] = xpu::load_vec<4>(a_row + 16 * i * (d + kPad) + k);
      right[i] = xpu::load_vec<4>(b_row + 16 * i * (d + kPad) + k);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) acc[i][j] += left[i][e] * right[j][e];
      }
    }
  }
}

/// Writes a thread's 2 x 2 to the weights tile [kTile][kTile + 1] that multiply() reads. Rows are
/// written and read by the same 16 lanes, so sync_warp orders them.
__device__ inline void put_weights(float* weights, const float (&w)[2][2]) {
  xpu::sync_warp();
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      weights[(own_y() + 16 * i) * (kTile + 1) + own_x() + 16 * j] = w[i][j];
    }
  }
  xpu::sync_warp();
}

/// acc[i][c] += sum over j of weights[y + 16 i][j] b[j][4 x + 64 c ...].
template <int kC>
__device__ inline void multiply(float (&acc)[2][kC][4], const float* weights, const float* b,
                                int d) {
  const int x = own_x(), y = own_y();
#pragma unroll 2
  for (int j = 0; j < kTile; ++j) {
    const float w0 = weights[y * (kTile + 1) + j], w1 = weights[(y + 16) * (kTile + 1) + j];
#pragma unroll
    for (int c = 0; c < kC; ++c) {
      if (4 * x + 64 * c >= d) continue;
      const auto v = xpu::load_vec<4>(b + j * (d + kPad) + 4 * x + 64 * c);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        acc[0][c][e] += w0 * v[e];
        acc[1][c][e] += w1 * v[e];
      }
    }
  }
}

/// Writes rows below `rows` of an output, each times factor[i].
template <int kC>
__device__ inline void store_rows(float* global, std::int64_t stride, const float (&acc)[2][kC][4],
                                  const float (&factor)[2], int rows, int d) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = own_y() + 16 * i;
    if (row >= rows) continue;
#pragma unroll
    for (int c = 0; c < kC; ++c) {
      const int column = 4 * own_x() + 64 * c;
      if (column >= d) continue;
      xpu::Vec<float, 4> out;
#pragma unroll
      for (int e = 0; e < 4; ++e) out[e] = acc[i][c][e] * factor[i];
      xpu::store_vec(global + row * stride + column, out);
    }
  }
}

/// Over the 16 lanes of a row.
__device__ inline float row_sum(float x) {
#pragma unroll
  for (int offset = 8; offset > 0; offset /= 2) x += xpu::shuffle_xor(x, offset);
  return x;
}
__device__ inline float row_max(float x) {
#pragma unroll
  for (int offset = 8; offset > 0; offset /= 2) x = fmaxf(x, xpu::shuffle_xor(x, offset));
  return x;
}

/// Score of a pair in units of log 2, -inf where it is masked.
__device__ inline float score(const AttentionMask& mask, float product, float scale, float bias,
                              int query, int key, int key_length) {
  if (!visible(mask, query, key, key_length)) return -kInf;
  const float add = query - key < mask.bias_window ? 0.0f : bias;
  return (product * scale + add) * kLog2E;
}

}  // namespace lh::kernels::softmax::fp32
