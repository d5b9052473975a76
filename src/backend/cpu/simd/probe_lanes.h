// The second channel of attention tiles (Parallax, arXiv 2605.29157), shared by the f32 and bf16
// tables: weights times centred probe scores, and the gradients of both kinds of scores. Tiles and
// put() as in attention_lanes.h.
#pragma once

#include "backend/cpu/simd/attention_lanes.h"

namespace lh::cpu::LH_SIMD_NAMESPACE {
namespace {

template <typename V>
inline bool any_zero(V v) {
  bool found = false;
  for (size_t i = 0; i < sizeof(V) / sizeof(v[0]); ++i) found |= v[i] == 0;
  return found;
}

/// The part of TileOps::softmax_probe after the weights p and the sums of softmax().
template <typename Real, typename Put>
inline void probe_columns(const Real* p, const Real* u, int rows, int n,
                          const ProbeSums<Real>& sums, Put&& put) {
  using V = vec_t<Real>;
  constexpr int kLanes = Compute<Real>::kLanes;
  for_columns<Real>(n, [&](int c0, auto block) {
    constexpr int kCount = decltype(block)::kCount;
    V center[kCount], sum[kCount], shrink[kCount];
    bool begins = false;
    for (int j = 0; j < kCount; ++j) {
      const int c = c0 + j * kLanes;
      shrink[j] = load(sums.shrink + c, Full{});
      center[j] = load(sums.center + c, Full{});
      sum[j] = load(sums.probe_total + c, Full{}) * shrink[j];
      begins |= any_zero(shrink[j]);
    }
    // A factor of 0: nothing before this tile counts, so the query may choose its center here.
    if (begins) {
      V mean[kCount] = {};
      for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (int j = 0; j < kCount; ++j) {
          const int at = r * kTile + c0 + j * kLanes;
          mean[j] += load(p + at, Full{}) * load(u + at, Full{});
        }
      for (int j = 0; j < kCount; ++j) {
        const V total = load(sums.total + c0 + j * kLanes, Full{});
        center[j] = shrink[j] == 0 ? mean[j] / total : center[j];
        store(sums.center + c0 + j * kLanes, center[j], Full{});
      }
    }
    for (int r = 0; r < rows; r += 2) {
      const bool pair = r + 1 < rows;
#pragma GCC unroll 4
      for (int j = 0; j < kCount; ++j) {
        const int at = r * kTile + c0 + j * kLanes;
        const V w0 = load(p + at, Full{}) * (load(u + at, Full{}) - center[j]);
        const V w1 = pair ? load(p + at + kTile, Full{}) * (load(u + at + kTile, Full{}) - center[j])
                          : V{};
        sum[j] += w0 + w1;
        put(r, c0 + j * kLanes, w0, w1);
      }
    }
    for (int j = 0; j < kCount; ++j) store(sums.probe_total + c0 + j * kLanes, sum[j], Full{});
  });
}

/// TileOps::probe_gradient.
template <typename Real, typename PutW, typename PutDs, typename PutDu>
inline void probe_gradient_columns(const Real* scores, const Real* u, const Real* dp, int rows,
                                   int n, Real scale, Real ds_scale,
                                   const ProbeStatistics<Real>& statistics, PutW&& put_w,
                                   PutDs&& put_ds, PutDu&& put_du) {
  using V = vec_t<Real>;
  constexpr int kLanes = Compute<Real>::kLanes;
  for (int c = 0; c < n; c += kLanes) {
    const V lse2 = load(statistics.lse2 + c, Full{}), delta = load(statistics.delta + c, Full{});
    const V plain = load(statistics.intercept_delta + c, Full{});
    const V mean = load(statistics.probe_mean + c, Full{});
    for (int r = 0; r < rows; r += 2) {
      V w[2] = {}, ds[2] = {}, du[2] = {};
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        if (r + i >= rows) break;
        const int at = (r + i) * kTile + c;
        const V p = power_of_two(load(scores + at, Full{}) * scale - lse2);
        const V e = mean - load(u + at, Full{}), g = load(dp + at, Full{}), b = g - plain;
        w[i] = p + p * e;
        ds[i] = p * (g - delta + e * b) * ds_scale;
        du[i] = -(p * b);
      }
      put_w(r, c, w[0], w[1]);
      put_ds(r, c, ds[0], ds[1]);
      put_du(r, c, du[0], du[1]);
    }
  }
}

}  // namespace
}  // namespace lh::cpu::LH_SIMD_NAMESPACE
