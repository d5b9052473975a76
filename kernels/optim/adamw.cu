// AdamW over a list of tensors: p = (1 - lr wd) p - lr m_hat / (sqrt(v_hat) + eps).
// Tiling: one block per chunk of 16384 elements of one tensor (elementwise/chunks.h), found by binary
//   search in the list; a thread moves groups of four elements. No shared memory.
// Scalars: learning-rate factor, bias corrections and gradient scale are read from device memory and
//   turned into fp32 coefficients by every thread, in fp64 as the CPU does. A gradient scale that is
//   not finite ends the block, so that the host need not wait to learn whether a step is good.
// Numerics: fp32; the bf16 copy is the new master, rounded to nearest even.
// Determinism: bitwise; every element is one thread's.
// Roofline, an unmeasured estimate: memory. 28 bytes per parameter and 2 more for the bf16 copy:
//   0.6B parameters take 3.8 ms at 4.8 TB/s.
#include "kernels/optim/adamw.h"

#include "kernels/elementwise/map.h"

namespace lh::kernels {

namespace {

struct Coefficients {
  float grad_scale, beta1, beta2;
  float step_size;     // learning rate / (1 - beta1^t)
  float root_v_scale;  // 1 / sqrt(1 - beta2^t)
  float eps;
  float keep;  // 1 - learning rate * weight decay
};

/// N elements from `at` on.
template <int N>
__device__ inline void update(const AdamWTensor& t, const Coefficients& c, std::int64_t at) {
  float value[N], grad[N], first[N], second[N];
  load<N>(t.p + at, value);
  load<N>(t.g + at, grad);
  load<N>(t.m + at, first);
  load<N>(t.v + at, second);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float x = grad[j] * c.grad_scale;
    first[j] = c.beta1 * first[j] + (1.0f - c.beta1) * x;
    second[j] = c.beta2 * second[j] + (1.0f - c.beta2) * x * x;
    value[j] = c.keep * value[j] -
               c.step_size * first[j] / (sqrtf(second[j]) * c.root_v_scale + c.eps);
  }
  store<N>(t.p + at, value);
  store<N>(t.m + at, first);
  store<N>(t.v + at, second);
  if (t.compute) store<N>(t.compute + at, value);
}

__device__ inline bool aligned(const void* p, unsigned bytes) {
  return reinterpret_cast<std::uintptr_t>(p) % bytes == 0;
}

__global__ void __launch_bounds__(kChunkThreads) adamw_kernel(const AdamWParams params) {
  const double grad_scale = params.scalars[kGradScale];
  if (!is_finite(grad_scale)) return;
  const std::int64_t chunk = blockIdx.x;
  const AdamWTensor t = params.tensors[entry_of_chunk(params.tensors, params.count, chunk)];
  const double rate = params.learning_rate * params.scalars[kRateFactor] * t.lr_multiplier;
  const Coefficients c{static_cast<float>(grad_scale),
                       static_cast<float>(params.beta1),
                       static_cast<float>(params.beta2),
                       static_cast<float>(rate / params.scalars[kFirstCorrection]),
                       static_cast<float>(params.scalars[kRootVScale]),
                       static_cast<float>(params.eps),
                       static_cast<float>(1.0 - rate * params.scalars[kDecayFactor] * t.weight_decay)};
  const std::int64_t begin = (chunk - t.first_chunk) * kChunkElements;
  const int count = static_cast<int>(t.n - begin < kChunkElements ? t.n - begin : kChunkElements);
  // Four fp32; the copy's four bf16 are 8 bytes. Chunks begin at multiples of four.
  const bool vector = aligned(t.p, 16) && aligned(t.g, 16) && aligned(t.m, 16) && aligned(t.v, 16) &&
                      aligned(t.compute, 8);
  const int grouped = vector ? count / 4 * 4 : 0;
  for (int i = 4 * threadIdx.x; i < grouped; i += 4 * kChunkThreads) update<4>(t, c, begin + i);
  for (int i = grouped + threadIdx.x; i < count; i += kChunkThreads) update<1>(t, c, begin + i);
}

}  // namespace

void adamw(const AdamWParams& params, xpu::Stream stream) {
  if (params.chunks == 0) return;
  xpu::launch<adamw_kernel>({static_cast<unsigned>(params.chunks), kChunkThreads, 0, stream},
                            params);
}

}  // namespace lh::kernels
