// Where a bias per key closes runs of keys, so that the backward pass over keys can leave out whole tiles of
// them. Passes over queries have copies of the open ones instead (open_keys.h).
#pragma once
#include "kernels/attention/params.h"

namespace lh::kernels {

/// The longest run that is told apart: no kernel has a key tile of more rows.
constexpr int kAttentionClosedRun = 128;

struct AttentionClosedRunsParams {
  const float* bias = nullptr;   // [nk, kv_heads]
  std::uint8_t* runs = nullptr;  // [kv_heads, nk]
  int key_rows = 0, kv_heads = 0;
};

/// runs[h][j] = how many keys from row j on have a bias of -inf, one after another, up to
/// kAttentionClosedRun; rows past the last count as closed. So rows [j, j + n) are closed when
/// runs[h][j] >= n, wherever a segment cuts its tiles.
void attention_closed_runs(const AttentionClosedRunsParams& p, xpu::Stream stream);

/// Bytes of the runs.
inline std::size_t attention_closed_runs_bytes(int key_rows, int kv_heads) {
  return static_cast<std::size_t>(key_rows) * static_cast<std::size_t>(kv_heads);
}

}  // namespace lh::kernels
