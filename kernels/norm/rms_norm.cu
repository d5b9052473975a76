// RMSNorm (Zhang and Sennrich 2019) with fused residual addition.
//   h = x + residual,  r = 1 / sqrt(mean(h^2) + eps),  y_i = w_i h_i r
//   dh_i = r (w_i dy_i - h_i r^2 mean(w dy h)) + dh_add_i,  dw_i = sum over rows of dy_i h_i r
// Tiling: rows of at most 256 (heads of QK-norm) go a warp each, in registers (rms_norm_short.h);
//   longer ones a block of 256 threads per row. A thread owns the same columns in every pass, so the row
//   is kept in shared memory without barriers and global memory is read once.
// Numerics: fp32 sums in a fixed order; h is rounded to T before it is normalised, so that the
//   backward pass sees what the forward pass saw.
// Determinism: bitwise. The gradient of w is summed per block over rows in order, then over blocks.
// Roofline: memory. Bytes per element of T: forward 2 T (4 T with residual), backward 3 T (4 T with
//   dh_add); at 4.8 TB/s a bf16 row block of 16384 x 4096 takes 0.06 ms forward. Unmeasured.
// Limits: a row (forward in T, backward in fp32) fits in 227 KiB of shared memory.
#include "kernels/norm/rms_norm.h"

#include "kernels/norm/rms_norm_short.h"
#include "kernels/xpu/xpu.h"

namespace lh::kernels {

namespace {

constexpr int kThreads = 256;
constexpr int kMaxBwdBlocks = 264;  // two per multiprocessor of an H100, a constant for determinism

template <class T, int kVec>
__global__ void __launch_bounds__(kThreads) rms_norm_fwd_kernel(const RmsNormFwdParams<T> p) {
  XPU_DYN_SHARED(T, row);
  XPU_SHARED(float, scratch, [kThreads / 32]);
  const auto base = static_cast<std::size_t>(blockIdx.x) * p.dim;

  float sum = 0.0f;
  for (int i = threadIdx.x * kVec; i < p.dim; i += kThreads * kVec) {
    auto h = xpu::load_vec<kVec>(p.x + base + i);
    if (p.residual) {
      const auto r = xpu::load_vec<kVec>(p.residual + base + i);
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        h[j] = xpu::from_float<T>(xpu::to_float(h[j]) + xpu::to_float(r[j]));
      }
      xpu::store_vec(p.h + base + i, h);
    }
#pragma unroll
    for (int j = 0; j < kVec; ++j) sum += xpu::to_float(h[j]) * xpu::to_float(h[j]);
    xpu::store_vec(row + i, h);
  }

  sum = xpu::block_sum(sum, scratch);
  const float inv_rms = xpu::rsqrt(sum / p.dim + p.eps);
  if (p.inv_rms && threadIdx.x == 0) p.inv_rms[blockIdx.x] = inv_rms;

  for (int i = threadIdx.x * kVec; i < p.dim; i += kThreads * kVec) {
    const auto w = xpu::load_vec<kVec>(p.weight + i);
    auto y = xpu::load_vec<kVec>(row + i);
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      y[j] = xpu::from_float<T>(xpu::to_float(w[j]) * (xpu::to_float(y[j]) * inv_rms));
    }
    xpu::store_vec(p.y + base + i, y);
  }
}

/// Each block takes the rows blockIdx.x, + gridDim.x, ...; its part of dweight goes to row
/// blockIdx.x of the workspace.
template <class T, int kVec>
__global__ void __launch_bounds__(kThreads) rms_norm_bwd_kernel(const RmsNormBwdParams<T> p) {
  XPU_DYN_SHARED(float, dweight);  // [dim], each thread its own columns
  XPU_SHARED(float, scratch, [kThreads / 32]);
  for (int i = threadIdx.x * kVec; i < p.dim; i += kThreads * kVec) {
#pragma unroll
    for (int j = 0; j < kVec; ++j) dweight[i + j] = 0.0f;
  }

  for (int row = blockIdx.x; row < p.rows; row += gridDim.x) {
    const auto base = static_cast<std::size_t>(row) * p.dim;
    const float inv_rms = p.inv_rms[row];

    float dot = 0.0f;  // sum of w dy h
    for (int i = threadIdx.x * kVec; i < p.dim; i += kThreads * kVec) {
      const auto dy = xpu::load_vec<kVec>(p.dy + base + i);
      const auto h = xpu::load_vec<kVec>(p.h + base + i);
      const auto w = xpu::load_vec<kVec>(p.weight + i);
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        const float dy_h = xpu::to_float(dy[j]) * xpu::to_float(h[j]);
        dot += xpu::to_float(w[j]) * dy_h;
        dweight[i + j] += dy_h * inv_rms;
      }
    }
    dot = xpu::block_sum(dot, scratch);

    // The second read of dy and h comes from cache.
    const float shrink = dot / p.dim * inv_rms * inv_rms;
    for (int i = threadIdx.x * kVec; i < p.dim; i += kThreads * kVec) {
      const auto dy = xpu::load_vec<kVec>(p.dy + base + i);
      const auto h = xpu::load_vec<kVec>(p.h + base + i);
      const auto w = xpu::load_vec<kVec>(p.weight + i);
      xpu::Vec<T, kVec> add{}, dh;
      if (p.dh_add) add = xpu::load_vec<kVec>(p.dh_add + base + i);
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        const float direct = xpu::to_float(w[j]) * xpu::to_float(dy[j]);
        const float value = inv_rms * (direct - xpu::to_float(h[j]) * shrink);
        dh[j] = xpu::from_float<T>(p.dh_add ? value + xpu::to_float(add[j]) : value);
      }
      xpu::store_vec(p.dh + base + i, dh);
    }
  }

  for (int i = threadIdx.x * kVec; i < p.dim; i += kThreads * kVec) {
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      p.workspace[static_cast<std::size_t>(blockIdx.x) * p.dim + i + j] = dweight[i + j];
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    rms_norm_bwd_reduce_kernel(const float* parts, float* dweight, bool accumulate, int blocks,
                               int dim) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= dim) return;
  float sum = 0.0f;
  for (int b = 0; b < blocks; ++b) sum += parts[static_cast<std::size_t>(b) * dim + i];
  dweight[i] = accumulate ? dweight[i] + sum : sum;
}

int bwd_blocks(int rows, int dim) {
  const int work = dim <= short_rows::kMaxDim ? xpu::ceil_div(rows, short_rows::kWarps) : rows;
  return work < kMaxBwdBlocks ? work : kMaxBwdBlocks;
}

/// Elements per load of a lane when a warp takes a row: at most 16 bytes, and all lanes busy.
int short_vec(int dim, std::size_t element_bytes, bool aligned_rows) {
  if (!aligned_rows) return 1;
  for (int vec = 16 / static_cast<int>(element_bytes); vec > 1; vec /= 2) {
    if (dim % vec == 0 && dim >= 32 * vec) return vec;
  }
  return dim % 2 == 0 ? 2 : 1;
}

bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

}  // namespace

template <class T>
void rms_norm_fwd(const RmsNormFwdParams<T>& p, xpu::Stream stream) {
  if (p.dim < 1) throw xpu::Error("rms_norm_fwd: dim is " + std::to_string(p.dim));
  if (p.residual && !p.h) throw xpu::Error("rms_norm_fwd: residual is given, h is not");
  if (p.rows == 0) return;
  constexpr int kVec = 16 / sizeof(T);
  if (p.dim <= short_rows::kMaxDim) {
    const xpu::LaunchConfig config{
        static_cast<unsigned>(xpu::ceil_div(p.rows, short_rows::kWarps)), kThreads, 0, stream};
    switch (short_vec(p.dim, sizeof(T), aligned(p.x) && aligned(p.residual) && aligned(p.h) &&
                                            aligned(p.weight) && aligned(p.y))) {
      case 8:
        if constexpr (kVec == 8) xpu::launch<short_rows::rms_norm_fwd_short_kernel<T, 8>>(config, p);
        return;
      case 4: return xpu::launch<short_rows::rms_norm_fwd_short_kernel<T, 4>>(config, p);
      case 2: return xpu::launch<short_rows::rms_norm_fwd_short_kernel<T, 2>>(config, p);
      default: return xpu::launch<short_rows::rms_norm_fwd_short_kernel<T, 1>>(config, p);
    }
  }
  const xpu::LaunchConfig config{static_cast<unsigned>(p.rows), kThreads, p.dim * sizeof(T),
                                 stream};
  const bool vector = p.dim % kVec == 0 && aligned(p.x) && aligned(p.residual) && aligned(p.h) &&
                      aligned(p.weight) && aligned(p.y);
  if (vector) {
    xpu::launch<rms_norm_fwd_kernel<T, kVec>>(config, p);
  } else {
    xpu::launch<rms_norm_fwd_kernel<T, 1>>(config, p);
  }
}

template <class T>
void rms_norm_bwd(const RmsNormBwdParams<T>& p, xpu::Stream stream) {
  if (p.dim < 1 || p.rows < 1) {
    throw xpu::Error("rms_norm_bwd: rows is " + std::to_string(p.rows) + ", dim is " +
                     std::to_string(p.dim));
  }
  constexpr int kVec = 16 / sizeof(T);
  const int blocks = bwd_blocks(p.rows, p.dim);
  const bool whole = aligned(p.dy) && aligned(p.h) && aligned(p.weight) && aligned(p.dh_add) &&
                     aligned(p.dh);
  if (p.dim <= short_rows::kMaxDim) {
    const xpu::LaunchConfig config{static_cast<unsigned>(blocks), kThreads, 0, stream};
    switch (short_vec(p.dim, sizeof(T), whole)) {
      case 8:
        if constexpr (kVec == 8) xpu::launch<short_rows::rms_norm_bwd_short_kernel<T, 8>>(config, p);
        break;
      case 4: xpu::launch<short_rows::rms_norm_bwd_short_kernel<T, 4>>(config, p); break;
      case 2: xpu::launch<short_rows::rms_norm_bwd_short_kernel<T, 2>>(config, p); break;
      default: xpu::launch<short_rows::rms_norm_bwd_short_kernel<T, 1>>(config, p);
    }
  } else {
    const xpu::LaunchConfig config{static_cast<unsigned>(blocks), kThreads, p.dim * sizeof(float),
                                   stream};
    if (whole && p.dim % kVec == 0) {
      xpu::launch<rms_norm_bwd_kernel<T, kVec>>(config, p);
    } else {
      xpu::launch<rms_norm_bwd_kernel<T, 1>>(config, p);
    }
  }
  xpu::launch<rms_norm_bwd_reduce_kernel>(
      {static_cast<unsigned>(xpu::ceil_div(p.dim, kThreads)), kThreads, 0, stream}, p.workspace,
      p.dweight, p.accumulate_dweight, blocks, p.dim);
}

std::size_t rms_norm_bwd_workspace(int rows, int dim) {
  return static_cast<std::size_t>(bwd_blocks(rows, dim)) * dim;
}

template void rms_norm_fwd(const RmsNormFwdParams<float>&, xpu::Stream);
template void rms_norm_fwd(const RmsNormFwdParams<xpu::bf16>&, xpu::Stream);
template void rms_norm_bwd(const RmsNormBwdParams<float>&, xpu::Stream);
template void rms_norm_bwd(const RmsNormBwdParams<xpu::bf16>&, xpu::Stream);

}  // namespace lh::kernels
