// y = x w^T for a few rows of x. A warp per row of w: its lanes read w in groups of 16 bytes and meet
// it with every row of x, which stays in the caches.
// Numerics: fp32 sums in a fixed order. Determinism: bitwise.
// Roofline: memory, w is read once; 4096 x 14336 bf16 take 0.025 ms at 4.8 TB/s. An estimate,
//   unmeasured.
#include "kernels/gemm/gemv.h"

#include "kernels/elementwise/map.h"

namespace lh::kernels {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

template <class T, int kRows, int N>
__global__ void __launch_bounds__(kThreads)
    gemv_kernel(const T* x, const T* w, T* y, int n, int k, std::int64_t w_stride) {
  const int lane = threadIdx.x % 32;
  const int column = blockIdx.x * kWarps + threadIdx.x / 32;
  if (column >= n) return;
  const T* row = w + column * w_stride;
  float sum[kRows] = {};
  for (int i = lane * N; i < k; i += 32 * N) {
    float a[N];
    load<N>(row + i, a);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float b[N];
      load<N>(x + static_cast<std::int64_t>(r) * k + i, b);
#pragma unroll
      for (int j = 0; j < N; ++j) sum[r] += a[j] * b[j];
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float total = xpu::warp_sum(sum[r]);
    if (lane == 0) y[static_cast<std::int64_t>(r) * n + column] = xpu::from_float<T>(total);
  }
}

template <class T, int kRows>
void run(const T* x, const T* w, T* y, int n, int k, std::int64_t w_stride, xpu::Stream stream) {
  constexpr int kGroup = 16 / sizeof(T);
  const xpu::LaunchConfig config{static_cast<unsigned>(xpu::ceil_div(n, kWarps)), kThreads, 0,
                                 stream};
  if (k % kGroup == 0 && w_stride % kGroup == 0 && aligned16(x) && aligned16(w)) {
    xpu::launch<gemv_kernel<T, kRows, kGroup>>(config, x, w, y, n, k, w_stride);
  } else {
    xpu::launch<gemv_kernel<T, kRows, 1>>(config, x, w, y, n, k, w_stride);
  }
}

}  // namespace

template <class T>
void gemv(const T* x, const T* w, T* y, int rows, int n, int k, std::int64_t w_stride,
          xpu::Stream stream) {
  if (n == 0) return;
  // Rows in one, two, four or eight at a time keeps the number of kernels small.
  while (rows > 0) {
    int done = 8;
    if (rows >= 8) run<T, 8>(x, w, y, n, k, w_stride, stream);
    else if (rows >= 4) run<T, 4>(x, w, y, n, k, w_stride, stream), done = 4;
    else if (rows >= 2) run<T, 2>(x, w, y, n, k, w_stride, stream), done = 2;
    else run<T, 1>(x, w, y, n, k, w_stride, stream), done = 1;
    x += static_cast<std::int64_t>(done) * k;
    y += static_cast<std::int64_t>(done) * n;
    rows -= done;
  }
}

template void gemv(const float*, const float*, float*, int, int, int, std::int64_t, xpu::Stream);
template void gemv(const xpu::bf16*, const xpu::bf16*, xpu::bf16*, int, int, int, std::int64_t,
                   xpu::Stream);

}  // namespace lh::kernels
