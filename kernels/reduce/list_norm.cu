// sum x^2 over all gradients of a model: every block adds one chunk of one tensor, then one block
// adds the chunks.
// Tiling: chunks of 16384 elements (elementwise/chunks.h), groups of 16 bytes per thread.
// Numerics: squares and sums in fp64, so that a large gradient has a finite norm and the sum is
//   infinite or NaN exactly when an element is: the search for bad values costs nothing more. The
//   fp64 units of an H200 keep pace with its memory (two operations per 4 bytes).
// Determinism: bitwise; the cut depends on the sizes alone and every sum has a fixed order.
// Roofline, an unmeasured estimate: memory, one read; 2.4 GB of gradients take 0.5 ms at 4.8 TB/s.
#include "kernels/reduce/list_norm.h"

#include "kernels/elementwise/map.h"

namespace lh::kernels {

namespace {

__global__ void __launch_bounds__(kChunkThreads)
    list_norm_kernel(const NormTensor* tensors, int count, double* parts) {
  XPU_SHARED(double, scratch, [kChunkThreads / 32]);
  const std::int64_t chunk = blockIdx.x;
  const NormTensor t = tensors[entry_of_chunk(tensors, count, chunk)];
  const std::int64_t begin = (chunk - t.first_chunk) * kChunkElements;
  const int size = static_cast<int>(t.n - begin < kChunkElements ? t.n - begin : kChunkElements);
  const float* x = t.x + begin;
  const int grouped = reinterpret_cast<std::uintptr_t>(x) % 16 == 0 ? size / 4 * 4 : 0;
  double sum = 0.0;
  for (int i = 4 * threadIdx.x; i < grouped; i += 4 * kChunkThreads) {
    float v[4];
    load<4>(x + i, v);
#pragma unroll
    for (int j = 0; j < 4; ++j) sum += static_cast<double>(v[j]) * v[j];
  }
  for (int i = grouped + threadIdx.x; i < size; i += kChunkThreads)
    sum += static_cast<double>(x[i]) * x[i];
  sum = xpu::block_sum(sum, scratch);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

constexpr int kPartThreads = 1024;

__global__ void __launch_bounds__(kPartThreads)
    list_norm_parts_kernel(const double* parts, std::int64_t count, double* out) {
  XPU_SHARED(double, scratch, [kPartThreads / 32]);
  double sum = 0.0;
  for (std::int64_t i = threadIdx.x; i < count; i += kPartThreads) sum += parts[i];
  sum = xpu::block_sum(sum, scratch);
  if (threadIdx.x == 0) *out = sum;
}

}  // namespace

void list_sum_of_squares(const NormTensor* tensors, int count, std::int64_t chunks, double* out,
                         double* workspace, xpu::Stream stream) {
  if (chunks > 0)
    xpu::launch<list_norm_kernel>({static_cast<unsigned>(chunks), kChunkThreads, 0, stream},
                                  tensors, count, workspace);
  xpu::launch<list_norm_parts_kernel>({1, kPartThreads, 0, stream}, workspace, chunks, out);
}

}  // namespace lh::kernels
