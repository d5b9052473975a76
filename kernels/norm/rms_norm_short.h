// RMSNorm of short rows (at most 256 elements): a warp per row, the row in registers. For rms_norm.cu.
#pragma once
#include "kernels/norm/rms_norm.h"
#include "kernels/xpu/xpu.h"

namespace lh::kernels::short_rows {

constexpr int kMaxDim = 256;
constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;

/// Calls body(column, slot) for the groups of kVec columns of this lane; `slot` counts their
/// elements from 0 and is a constant after unrolling.
template <int kVec, class Body>
__device__ inline void for_columns(int dim, Body body) {
#pragma unroll
  for (int k = 0; k < kMaxDim / (32 * kVec); ++k) {
    const int column = (k * 32 + static_cast<int>(threadIdx.x) % 32) * kVec;
    if (column < dim) body(column, k * kVec);
  }
}

template <class T, int kVec>
__global__ void __launch_bounds__(kThreads) rms_norm_fwd_short_kernel(const RmsNormFwdParams<T> p) {
  const int row = blockIdx.x * kWarps + threadIdx.x / 32;
  if (row >= p.rows) return;
  const auto base = static_cast<std::size_t>(row) * p.dim;
  float h[kMaxDim / 32], sum = 0.0f;
  for_columns<kVec>(p.dim, [&](int column, int slot) {
    auto x = xpu::load_vec<kVec>(p.x + base + column);
    if (p.residual) {
      const auto r = xpu::load_vec<kVec>(p.residual + base + column);
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        x[j] = xpu::from_float<T>(xpu::to_float(x[j]) + xpu::to_float(r[j]));
      }
      xpu::store_vec(p.h + base + column, x);
    }
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      h[slot + j] = xpu::to_float(x[j]);
      sum += h[slot + j] * h[slot + j];
    }
  });
  const float inv_rms = xpu::rsqrt(xpu::warp_sum(sum) / p.dim + p.eps);
  if (p.inv_rms && threadIdx.x % 32 == 0) p.inv_rms[row] = inv_rms;
  for_columns<kVec>(p.dim, [&](int column, int slot) {
    const auto w = xpu::load_vec<kVec>(p.weight + column);
    xpu::Vec<T, kVec> y;
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      y[j] = xpu::from_float<T>(xpu::to_float(w[j]) * (h[slot + j] * inv_rms));
    }
    xpu::store_vec(p.y + base + column, y);
  });
}

/// Warp w of block b takes the rows b * kWarps + w, + gridDim.x * kWarps, ...
template <class T, int kVec>
__global__ void __launch_bounds__(kThreads) rms_norm_bwd_short_kernel(const RmsNormBwdParams<T> p) {
  XPU_SHARED(float, parts, [kWarps][kMaxDim]);
  const int warp = threadIdx.x / 32;
  float dw[kMaxDim / 32] = {};
  for (int row = blockIdx.x * kWarps + warp; row < p.rows; row += gridDim.x * kWarps) {
    const auto base = static_cast<std::size_t>(row) * p.dim;
    const float inv_rms = p.inv_rms[row];
    float h[kMaxDim / 32], wdy[kMaxDim / 32], dot = 0.0f;
    for_columns<kVec>(p.dim, [&](int column, int slot) {
      const auto dy = xpu::load_vec<kVec>(p.dy + base + column);
      const auto x = xpu::load_vec<kVec>(p.h + base + column);
      const auto w = xpu::load_vec<kVec>(p.weight + column);
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        h[slot + j] = xpu::to_float(x[j]);
        wdy[slot + j] = xpu::to_float(w[j]) * xpu::to_float(dy[j]);
        dot += wdy[slot + j] * h[slot + j];
        dw[slot + j] += xpu::to_float(dy[j]) * (h[slot + j] * inv_rms);
      }
    });
    const float mean = xpu::warp_sum(dot) * inv_rms * inv_rms / p.dim;
    for_columns<kVec>(p.dim, [&](int column, int slot) {
      xpu::Vec<T, kVec> out;
      if (p.dh_add) out = xpu::load_vec<kVec>(p.dh_add + base + column);
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        const float dh = inv_rms * (wdy[slot + j] - h[slot + j] * mean);
        out[j] = xpu::from_float<T>(p.dh_add ? dh + xpu::to_float(out[j]) : dh);
      }
      xpu::store_vec(p.dh + base + column, out);
    });
  }
  for_columns<kVec>(p.dim, [&](int column, int slot) {
#pragma unroll
    for (int j = 0; j < kVec; ++j) parts[warp][column + j] = dw[slot + j];
  });
  xpu::sync_block();
  for (int i = threadIdx.x; i < p.dim; i += kThreads) {
    float sum = 0.0f;
    for (int w = 0; w < kWarps; ++w) sum += parts[w][i];
    p.workspace[static_cast<std::size_t>(blockIdx.x) * p.dim + i] = sum;
  }
}

}  // namespace lh::kernels::short_rows
