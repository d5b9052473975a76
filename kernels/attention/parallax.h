// Parallax (parameterised local linear attention, arXiv 2605.29157) over packed segments: softmax attention
// minus the covariance of values and keys along a probe per query. Portable kernels (sm_80 on).
#pragma once
#include "kernels/attention/decode.h"
#include "kernels/attention/params.h"

namespace lh::kernels {

/// As softmax attention, with a second channel. bias and partial are not supported: null.
template <class T>
struct ParallaxFwdParams : AttentionFwdParams<T> {
  const T* r = nullptr;         // [nq, heads, head_dim] probes
  T* intercept = nullptr;       // like out: the output of softmax attention
  float* probe_mean = nullptr;  // [nq, heads] sum_j p_j r k_j; 0 for a row that sees nothing
  std::int64_t r_stride = 0, intercept_stride = 0;
};

/// From all that the forward pass leaves. bias, dlse and dbias are not supported: null.
template <class T>
struct ParallaxBwdParams : AttentionBwdParams<T> {
  const T* r = nullptr;
  const T* intercept = nullptr;       // read by parallax_bwd_prepare only, as is
  const float* probe_mean = nullptr;  // this
  T* dr = nullptr;                    // [nq, heads, head_dim]
  std::int64_t r_stride = 0, intercept_stride = 0, dr_stride = 0;
  // stats: parallax_bwd_workspace floats, [4, heads, nq]: lse in units of log 2 (+inf for a row that
  // sees nothing), rowsum(dout out), rowsum(dout intercept), probe_mean.
};

/// Floats of ParallaxBwdParams::stats.
inline std::size_t parallax_bwd_workspace(int query_rows, int heads) {
  return std::size_t{4} * static_cast<std::size_t>(query_rows) * static_cast<std::size_t>(heads);
}

/// Largest head size.
constexpr int kParallaxMaxDim = 128;

/// Tile rows the schedule must be built with; T = float and xpu::bf16.
template <class T>
AttentionTiles parallax_tiles(int head_dim, int value_dim);

/// Throw xpu::Error when head_dim or value_dim is no multiple of 16 (fp32: of 4) or above
/// kParallaxMaxDim, heads no multiple of kv_heads, a base or row stride not 16-byte aligned, the
/// schedule has other tiles, or something is given that is not supported.
template <class T>
void parallax_fwd(const ParallaxFwdParams<T>& p, xpu::Stream stream);
/// Fills p.stats. Every row of [0, query_rows) is read.
template <class T>
void parallax_bwd_prepare(const ParallaxBwdParams<T>& p, xpu::Stream stream);
template <class T>
void parallax_bwd(const ParallaxBwdParams<T>& p, xpu::Stream stream);

/// A few new tokens per sequence over a long cache: attention_decode with a second channel. A block's
/// tile holds the queries of kRows (token, query head) pairs and their probes.
template <class T>
struct ParallaxDecodeParams : AttentionDecodeParams<T> {
  static constexpr int kRows = 8, kSums = 2;
  const T* r = nullptr;         // as ParallaxFwdParams
  T* intercept = nullptr;
  float* probe_mean = nullptr;
  std::int64_t r_stride = 0, intercept_stride = 0;
};

/// One launch. Throws xpu::Error for what parallax_fwd and attention_decode refuse.
template <class T>
void parallax_decode(const ParallaxDecodeParams<T>& p, xpu::Stream stream);

}  // namespace lh::kernels
