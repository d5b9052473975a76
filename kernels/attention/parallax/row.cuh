// What the two channels of Parallax need of a query row: the online sums of the forward pass, and the
// gradients of a pair in the backward pass.
#pragma once
#include "kernels/xpu/xpu.h"

namespace lh::kernels::parallax {

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;
constexpr float kInf = __builtin_huge_valf();

/// Over groups of kLanes neighbouring lanes.
template <int kLanes>
__device__ inline float lanes_sum(float x) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) x += xpu::shuffle_xor(x, offset);
  return x;
}
template <int kLanes>
__device__ inline float lanes_max(float x) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) x = fmaxf(x, xpu::shuffle_xor(x, offset));
  return x;
}

template <bool kFast>
__device__ inline float exp_2(float x) {
  return kFast ? xpu::fast_exp2(x) : exp2f(x);
}

/// What a step of ProbeRow does to sums of values: plain is multiplied by factor, and the centred one
/// becomes (centred - shift plain) factor.
struct Rescale {
  float factor, shift;
};

/// New weights of a row in a lane: what they make of the old ones, and their sum.
struct Weighed {
  float factor, sum;
};

/// Online softmax of a row with a second sum, of weights times (u - center). The weights
/// p_j (1 + mean(u) - u_j) do not change when a constant is taken from all u, and the sums lose the
/// fewer digits the nearer it is to the mean. So the center moves to the mean so far whenever the maximum
/// rises, that is when heavier keys than all before have come: sum p (u - c') v is sum p (u - c) v minus
/// (c' - c) sum p v. kLanes neighbouring lanes hold a row.
struct ProbeRow {
  float maximum = -kInf;  // in units of log 2
  float center = 0.0f;
  float sum = 0.0f, excess = 0.0f;  // of the weights, and of weights (u - center); of this lane

  /// s: scores, -inf where masked; they become weights. u becomes weights times (u - center). Scores
  /// times `factor` are in units of log 2. The whole warp calls it.
  template <int kLanes, bool kFast, int kCount>
  __device__ inline Rescale add(float (&s)[kCount], float (&u)[kCount], float factor = 1.0f) {
    return center_on<kLanes>(s, u, weigh<kLanes, kFast>(s, factor));
  }

  /// The first half of it, which does not need u: what center_on then takes beside the weights.
  template <int kLanes, bool kFast, int kCount>
  __device__ inline Weighed weigh(float (&s)[kCount], float factor = 1.0f) {
    float top = s[0];
#pragma unroll
    for (int i = 1; i < kCount; ++i) top = fmaxf(top, s[i]);
    top = fmaxf(maximum, lanes_max<kLanes>(top) * factor);
    const float base = top == -kInf ? 0.0f : top;  // a row that saw nothing so far
    Weighed weighed{exp_2<kFast>(maximum - base), 0.0f};
    maximum = top;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      s[i] = exp_2<kFast>(s[i] * factor - base);
      weighed.sum += s[i];
    }
    return weighed;
  }
  template <int kLanes, int kCount>
  __device__ inline Rescale center_on(const float (&s)[kCount], float (&u)[kCount],
                                      const Weighed& weighed) {
    Rescale rescale{weighed.factor, 0.0f};
#pragma unroll
    for (int i = 0; i < kCount; ++i) u[i] -= center;
    if (xpu::ballot(rescale.factor != 1.0f)) {  // rare once the largest scores have been seen
      float beyond = excess * rescale.factor;
#pragma unroll
      for (int i = 0; i < kCount; ++i) beyond += s[i] * u[i];
      const float total = lanes_sum<kLanes>(sum * rescale.factor + weighed.sum);
      beyond = lanes_sum<kLanes>(beyond);
      if (rescale.factor != 1.0f && total > 0.0f) {
        rescale.shift = beyond / total;
        center += rescale.shift;
        excess -= rescale.shift * sum;
#pragma unroll
        for (int i = 0; i < kCount; ++i) u[i] -= rescale.shift;
      }
    }
    sum = sum * rescale.factor + weighed.sum;
    excess *= rescale.factor;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      u[i] *= s[i];
      excess += u[i];
    }
    return rescale;
  }

  /// Adds up the lanes of the row; what follows is of the whole row.
  template <int kLanes>
  __device__ inline void finish() {
    sum = lanes_sum<kLanes>(sum);
    excess = lanes_sum<kLanes>(excess);
  }
  __device__ inline float inverse() const { return sum == 0.0f ? 0.0f : 1.0f / sum; }
  /// Mean of u minus the center.
  __device__ inline float beyond() const { return excess * inverse(); }
  __device__ inline float probe_mean() const { return center + beyond(); }
  __device__ inline float lse() const {
    return sum == 0.0f ? -kInf : maximum * kLn2 + logf(sum);
  }
};

/// Of a query row, as parallax_bwd_prepare leaves them.
struct RowStatistics {
  float lse = kInf;  // in units of log 2
  float total = 0.0f, plain = 0.0f;  // rowsum(dout out), rowsum(dout intercept)
  float mean = 0.0f;                 // of u

  /// From stats [4, heads, nq] at (head, row).
  __device__ inline void read(const float* stats, std::int64_t step) {
    lse = stats[0];
    total = stats[step];
    plain = stats[2 * step];
    mean = stats[3 * step];
  }
};

/// Gradients of a pair's scores, and what dout counts in dv.
struct PairGradient {
  float score, probe, value;
};

/// p: weight, u: probe score, a = dout v.
__device__ inline PairGradient pair_gradient(float p, float u, float a, const RowStatistics& row) {
  const float e = row.mean - u, b = a - row.plain;
  return {p * (a - row.total + e * b), -p * b, p * (1.0f + e)};
}

}  // namespace lh::kernels::parallax
