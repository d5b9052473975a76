// What the backward passes of Parallax need of every (query, head), one column each of stats:
//   lse in units of log 2,  rowsum(dout out),  rowsum(dout intercept),  probe_mean
// Tiling: a warp per (query, head). Numerics: fp32. Determinism: bitwise.
// Roofline: memory, out, intercept and dout are read once; 65536 tokens x 32 heads x 128 bf16 take
//   0.34 ms at 4.8 TB/s. An estimate, unmeasured.
#include "kernels/attention/parallax/dispatch.h"
#include "kernels/attention/parallax/row.cuh"

namespace lh::kernels::parallax {

namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads)
    parallax_bwd_prepare_kernel(const ParallaxBwdParams<T> p) {
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * (kThreads / 32) +
                            threadIdx.x / 32;
  if (item >= std::int64_t{p.query_rows} * p.heads) return;
  const int lane = threadIdx.x % 32, head = static_cast<int>(item % p.heads);
  const std::int64_t row = item / p.heads;
  const T* out = p.out + row * p.out_stride + head * p.value_dim;
  const T* intercept = p.intercept + row * p.intercept_stride + head * p.value_dim;
  const T* dout = p.dout + row * p.dout_stride + head * p.value_dim;
  float total = 0.0f, plain = 0.0f;
  for (int i = 2 * lane; i < p.value_dim; i += 64) {
    const auto a = xpu::load_vec<2>(out + i), b = xpu::load_vec<2>(intercept + i),
               d = xpu::load_vec<2>(dout + i);
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      total += xpu::to_float(a[c]) * xpu::to_float(d[c]);
      plain += xpu::to_float(b[c]) * xpu::to_float(d[c]);
    }
  }
  total = xpu::warp_sum(total);
  plain = xpu::warp_sum(plain);
  if (lane == 0) {
    const float lse = p.lse[item];
    const std::int64_t step = std::int64_t{p.heads} * p.query_rows;
    float* stat = p.stats + std::int64_t{head} * p.query_rows + row;
    stat[0] = lse == -kInf ? kInf : lse * kLog2E;
    stat[step] = total;
    stat[2 * step] = plain;
    stat[3 * step] = p.probe_mean[item];
  }
}

}  // namespace

template <class T>
void launch_prepare(const ParallaxBwdParams<T>& p, xpu::Stream stream) {
  const std::int64_t items = std::int64_t{p.query_rows} * p.heads;
  if (items == 0) return;
  xpu::launch<parallax_bwd_prepare_kernel<T>>(
      {static_cast<unsigned>(xpu::ceil_div(items, kThreads / 32)), kThreads, 0, stream}, p);
}

template void launch_prepare(const ParallaxBwdParams<float>&, xpu::Stream);
template void launch_prepare(const ParallaxBwdParams<xpu::bf16>&, xpu::Stream);

}  // namespace lh::kernels::parallax
