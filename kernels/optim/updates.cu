// Momentum and plain updates, elementwise; the clipping factor, one warp.
// Tiling: a grid-stride loop over groups of four elements (elementwise/map.h).
// Numerics: fp32; coefficients in fp64 from scalars in device memory.
// Determinism: bitwise.
// Roofline, an unmeasured estimate: memory. An update moves 12 bytes per parameter and 2 more for
//   the bf16 copy: 0.5B parameters take 1.5 ms at 4.8 TB/s; momentum 16 bytes, 1.7 ms.
#include "kernels/optim/updates.h"

#include "kernels/elementwise/map.h"

namespace lh::kernels {

namespace {

struct Momentum {
  float* m;
  const float* g;
  double mu;
  const double* scalars;
  float* direction;
  template <int N>
  __device__ void at(std::int64_t i) const {
    float average[N], grad[N];
    load<N>(m + i, average);
    const double scale = scalars[kGradScale];
    if (!is_finite(scale)) {
      if (direction) store<N>(direction + i, average);
      return;
    }
    const float keep = static_cast<float>(mu), add = static_cast<float>((1.0 - mu) * scale);
    load<N>(g + i, grad);
#pragma unroll
    for (int j = 0; j < N; ++j) average[j] = keep * average[j] + add * grad[j];
    store<N>(m + i, average);
    if (!direction) return;
#pragma unroll
    for (int j = 0; j < N; ++j) average[j] = add * grad[j] + keep * average[j];
    store<N>(direction + i, average);
  }
};

struct Apply {
  ApplyUpdate params;
  template <int N>
  __device__ void at(std::int64_t i) const {
    if (!is_finite(params.scalars[kGradScale])) return;
    const double rate =
        params.learning_rate * params.scalars[kRateFactor] * params.lr_multiplier;
    const float keep = static_cast<float>(1.0 - rate * params.scalars[kDecayFactor] * params.weight_decay);
    const float step = static_cast<float>(rate);
    float value[N], u[N];
    load<N>(params.p + i, value);
    load<N>(params.update + i, u);
#pragma unroll
    for (int j = 0; j < N; ++j) value[j] = keep * value[j] - step * u[j];
    store<N>(params.p + i, value);
    if (params.compute) store<N>(params.compute + i, value);
  }
};

__global__ void __launch_bounds__(32)
    clip_scale_kernel(const double* sum_of_squares, const double* losses, int n, double clip_norm,
                      double* out) {
  int bad = 0;
  for (int i = threadIdx.x; i < n; i += 32) bad += is_finite(losses[i]) ? 0 : 1;
  bad = xpu::warp_sum(bad);
  const double norm = sqrt(*sum_of_squares);
  if (threadIdx.x != 0) return;
  if (bad > 0 || !is_finite(norm)) {
    *out = NAN;
  } else {
    *out = clip_norm > 0.0 && norm > clip_norm ? clip_norm / norm : 1.0;
  }
}

}  // namespace

void momentum(float* m, const float* g, double mu, const double* scalars, float* direction,
              std::int64_t n, xpu::Stream stream) {
  map<4>(Momentum{m, g, mu, scalars, direction}, n,
         aligned16(m) && aligned16(g) && aligned16(direction), stream);
}

void apply_update(const ApplyUpdate& params, std::int64_t n, xpu::Stream stream) {
  // Four fp32; the copy's four bf16 are 8 bytes.
  map<4>(Apply{params}, n,
         aligned16(params.p) && aligned16(params.update) &&
             reinterpret_cast<std::uintptr_t>(params.compute) % 8 == 0,
         stream);
}

void clip_scale(const double* sum_of_squares, const double* losses, int n, double clip_norm,
                double* out, xpu::Stream stream) {
  xpu::launch<clip_scale_kernel>({1, 32, 0, stream}, sum_of_squares, losses, n, clip_norm, out);
}

}  // namespace lh::kernels
