// Softmax attention over packed segments, forward and backward: the portable kernels (sm_80 on).
#pragma once
#include "kernels/attention/params.h"

namespace lh::kernels {

/// Tile rows the schedule must be built with; T = float and xpu::bf16.
template <class T>
AttentionTiles attention_tiles(int head_dim, int value_dim);

/// Throw xpu::Error when head_dim or value_dim is no multiple of 16 (fp32: of 4) or above 256, heads no multiple
/// of kv_heads, a base or row stride not 16-byte aligned, or the schedule has other tiles.
template <class T>
void attention_fwd(const AttentionFwdParams<T>& p, xpu::Stream stream);

/// Fills p.stats from out, lse, dout and dlse. Once per backward pass, also when several
/// attention_bwd calls (parts of the keys) share it. Every row of [0, query_rows) is read.
template <class T>
void attention_bwd_prepare(const AttentionBwdParams<T>& p, xpu::Stream stream);
template <class T>
void attention_bwd(const AttentionBwdParams<T>& p, xpu::Stream stream);

/// Floats of AttentionBwdParams::stats.
inline std::size_t attention_bwd_workspace(int query_rows, int heads) {
  return std::size_t{2} * static_cast<std::size_t>(query_rows) * static_cast<std::size_t>(heads);
}

}  // namespace lh::kernels
