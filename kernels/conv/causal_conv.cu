// Causal depthwise convolution (Mamba's and GLA's short convolution).
//   pre_t = b + sum_j w_j x_{t-K+1+j};  y = silu(pre) or pre
//   g = dy silu'(pre);  dx_s = sum_j w_j g_{s+K-1-j};  dw_j = sum_t g_t x_{t-K+1+j};  db = sum_t g_t
// Tiling: one map over [n, channels] forward; backward writes g, then dx by the same map, while sums over
//   tokens follow bias.cu: 32 channels and a run of tokens per block, runs added by a second kernel.
// Numerics: fp32, g is kept in fp32. Determinism: bitwise.
// Roofline: memory; rows are read width times, from the caches after the first. 65536 x 4096 bf16 take
//   0.22 ms forward at 4.8 TB/s. An estimate, unmeasured.
#include "kernels/conv/causal_conv.h"

#include "kernels/elementwise/map.h"

namespace lh::kernels {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kMaxRuns = 64, kMinRows = 64;
constexpr int kMaxWidth = 4;

int runs_of(int n) {
  const int runs = xpu::ceil_div(n, kMinRows);
  return runs < kMaxRuns ? runs : kMaxRuns;
}

template <class T, int N>
__device__ inline void convolve(const CausalConvParams<T>& p, std::int64_t i, float (&pre)[N]) {
  const int token = static_cast<int>(i / p.channels), channel = static_cast<int>(i % p.channels);
#pragma unroll
  for (int j = 0; j < N; ++j) pre[j] = p.bias ? p.bias[channel + j] : 0.0f;
  const int reach = p.positions[token];
  for (int tap = 0; tap < p.width; ++tap) {
    const int back = p.width - 1 - tap;
    if (back > reach) continue;
    float x[N];
    load<N>(p.x + i - static_cast<std::int64_t>(back) * p.channels, x);
#pragma unroll
    for (int j = 0; j < N; ++j) pre[j] += p.weight[(channel + j) * p.width + tap] * x[j];
  }
}

template <class T>
struct Forward {
  CausalConvParams<T> p;
  template <int N>
  __device__ void at(std::int64_t i) const {
    float pre[N];
    convolve<T, N>(p, i, pre);
    if (p.silu) {
#pragma unroll
      for (int j = 0; j < N; ++j) pre[j] /= 1.0f + expf(-pre[j]);
    }
    store<N>(p.y + i, pre);
  }
};

/// g into the workspace.
template <class T>
struct PreGradient {
  CausalConvParams<T> p;
  template <int N>
  __device__ void at(std::int64_t i) const {
    float dy[N];
    load<N>(p.dy + i, dy);
    if (p.silu) {
      float pre[N];
      convolve<T, N>(p, i, pre);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float s = 1.0f / (1.0f + expf(-pre[j]));
        dy[j] *= s * (1.0f + pre[j] * (1.0f - s));
      }
    }
    store<N>(p.workspace + i, dy);
  }
};

template <class T>
struct InputGradient {
  CausalConvParams<T> p;
  template <int N>
  __device__ void at(std::int64_t i) const {
    const int token = static_cast<int>(i / p.channels), channel = static_cast<int>(i % p.channels);
    float dx[N] = {};
    for (int tap = 0; tap < p.width; ++tap) {
      const int ahead = p.width - 1 - tap;
      // A later token reads this one when it is at least so far into the same document.
      if (token + ahead >= p.n || p.positions[token + ahead] < ahead) continue;
      float g[N];
      load<N>(p.workspace + i + static_cast<std::int64_t>(ahead) * p.channels, g);
#pragma unroll
      for (int j = 0; j < N; ++j) dx[j] += p.weight[(channel + j) * p.width + tap] * g[j];
    }
    store<N>(p.dx + i, dx);
  }
};

/// parts [run][tap or bias][channel].
template <class T>
__global__ void __launch_bounds__(kThreads) causal_conv_sums_kernel(const CausalConvParams<T> p,
                                                                    float* parts) {
  XPU_SHARED(float, sums, [kWarps][33]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int channel = blockIdx.x * 32 + lane;
  const int run = xpu::ceil_div(p.n, static_cast<int>(gridDim.y));
  const int begin = blockIdx.y * run, end = begin + run < p.n ? begin + run : p.n;
  float sum[kMaxWidth + 1] = {};
  if (channel < p.channels) {
    for (int t = begin + warp; t < end; t += kWarps) {
      const std::int64_t i = static_cast<std::int64_t>(t) * p.channels + channel;
      const float g = p.workspace[i];
      const int reach = p.positions[t];
#pragma unroll
      for (int tap = 0; tap < kMaxWidth; ++tap) {
        const int back = p.width - 1 - tap;
        if (back < 0 || back > reach) continue;
        sum[tap] += g * xpu::to_float(p.x[i - static_cast<std::int64_t>(back) * p.channels]);
      }
      sum[kMaxWidth] += g;
    }
  }
#pragma unroll
  for (int k = 0; k <= kMaxWidth; ++k) {
    sums[warp][lane] = sum[k];
    xpu::sync_block();
    if (warp == 0 && channel < p.channels) {
      float total = 0.0f;
      for (int w = 0; w < kWarps; ++w) total += sums[w][lane];
      parts[(static_cast<std::int64_t>(blockIdx.y) * (kMaxWidth + 1) + k) * p.channels + channel] =
          total;
    }
    xpu::sync_block();
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    causal_conv_reduce_kernel(const CausalConvParams<T> p, const float* parts, int runs) {
  const int channel = blockIdx.x * kThreads + threadIdx.x;
  if (channel >= p.channels) return;
  for (int k = 0; k <= kMaxWidth; ++k) {
    float total = 0.0f;
    for (int r = 0; r < runs; ++r) {
      total += parts[(static_cast<std::int64_t>(r) * (kMaxWidth + 1) + k) * p.channels + channel];
    }
    if (k < p.width) p.dweight[channel * p.width + k] += total;
    if (k == kMaxWidth && p.dbias) p.dbias[channel] += total;
  }
}

template <class T>
bool check(const CausalConvParams<T>& p, const char* op) {
  if (p.width < 1 || p.width > kMaxWidth || p.n < 0 || p.channels < 0) {
    throw xpu::Error(std::string(op) + ": width is 1 to 4, got " + std::to_string(p.width) +
                     " with n " + std::to_string(p.n) + " and channels " +
                     std::to_string(p.channels));
  }
  return p.n > 0 && p.channels > 0;
}

template <class T>
constexpr int kGroup = 16 / sizeof(T);

}  // namespace

template <class T>
void causal_conv_fwd(const CausalConvParams<T>& p, xpu::Stream stream) {
  if (!check(p, "causal_conv_fwd")) return;
  map<kGroup<T>>(Forward<T>{p}, static_cast<std::int64_t>(p.n) * p.channels,
                 p.channels % kGroup<T> == 0 && aligned16(p.x) && aligned16(p.y), stream);
}

template <class T>
void causal_conv_bwd(const CausalConvParams<T>& p, xpu::Stream stream) {
  if (!check(p, "causal_conv_bwd")) return;
  const std::int64_t all = static_cast<std::int64_t>(p.n) * p.channels;
  const bool vector = p.channels % kGroup<T> == 0 && aligned16(p.x) && aligned16(p.dy) &&
                      aligned16(p.dx) && aligned16(p.workspace);
  map<kGroup<T>>(PreGradient<T>{p}, all, vector, stream);
  map<kGroup<T>>(InputGradient<T>{p}, all, vector, stream);
  float* parts = p.workspace + all;
  const int runs = runs_of(p.n);
  xpu::launch<causal_conv_sums_kernel<T>>(
      {{static_cast<unsigned>(xpu::ceil_div(p.channels, 32)), static_cast<unsigned>(runs)},
       kThreads, 0, stream},
      p, parts);
  xpu::launch<causal_conv_reduce_kernel<T>>(
      {static_cast<unsigned>(xpu::ceil_div(p.channels, kThreads)), kThreads, 0, stream}, p, parts,
      runs);
}

std::size_t causal_conv_bwd_workspace(int n, int channels) {
  return (static_cast<std::size_t>(n) +
          static_cast<std::size_t>(runs_of(n)) * (kMaxWidth + 1)) *
         static_cast<std::size_t>(channels);
}

template void causal_conv_fwd(const CausalConvParams<float>&, xpu::Stream);
template void causal_conv_fwd(const CausalConvParams<xpu::bf16>&, xpu::Stream);
template void causal_conv_bwd(const CausalConvParams<float>&, xpu::Stream);
template void causal_conv_bwd(const CausalConvParams<xpu::bf16>&, xpu::Stream);

}  // namespace lh::kernels
