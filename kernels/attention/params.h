// What every softmax-attention kernel takes: segments, masks, the tile schedule, the tensors.
// Portable (softmax/) and Hopper kernels share these structs, so a caller fills them once.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

/// lh::AttentionSegment as the device reads it: a run of queries that sees one run of keys. A query
/// row lies in at most one segment; segments may share keys.
struct AttentionSegment {
  int query_begin = 0, query_length = 0;  // rows of q
  int key_begin = 0, key_length = 0;      // rows of k and v
  int query_offset = 0;                   // position of the first query minus that of first key
};

/// Query at position i sees key at position j (both relative to the segment's first key) when
/// j <= i and (window == 0 or i - j < window or j < sinks). Not causal: it sees all keys of the
/// segment, and window and sinks are 0.
struct AttentionMask {
  int window = 0;  // 0: unlimited; else counts the current token
  int sinks = 0;   // first tokens of a segment that stay visible beyond the window
  bool causal = true;
  int bias_window = 0;  // the bias is 0 where i - j < bias_window
};

/// Work item of a pass over queries: rows [first, first + tile) of a segment, cut at its end. An item
/// that begins at or beyond the end is empty: its block exits at once.
struct AttentionQueryTile {
  int segment = 0, first = 0;
};

/// Work item of a pass over keys: rows [first, first + count) of k, which the segments
/// key_segments[segments_begin, segments_begin + segments_count) all contain. Empty when count is 0.
struct AttentionKeyTile {
  int first = 0, count = 0;
  int segments_begin = 0, segments_count = 0;
};

/// What attention_open_keys (open_keys.h) leaves on the device: per kv head, the rows that a bias does
/// not close, one after another. Of the copies only the rows before before[h][nk] are written.
template <class T>
struct AttentionOpenKeys {
  const int* before = nullptr;  // [kv_heads, nk + 1], open rows before row j; null: there are none of these
  const T* k = nullptr;         // [nk, kv_heads, head_dim], contiguous
  const T* v = nullptr;         // [nk, kv_heads, value_dim]
  const float* bias = nullptr;  // [nk, kv_heads]
};

/// Device arrays that schedule.h builds on the host. A launcher refuses a schedule that was built
/// for another tile size than its own (attention_tiles).
struct AttentionSchedule {
  const AttentionSegment* segments = nullptr;
  const AttentionQueryTile* query_tiles = nullptr;
  const AttentionKeyTile* key_tiles = nullptr;  // backward only
  const int* key_segments = nullptr;            // backward only
  int query_tile_count = 0, query_tile_rows = 0;
  int key_tile_count = 0, key_tile_rows = 0;
};

/// Layouts: inner two dimensions contiguous, strides are elements between rows (tokens).
template <class T>
struct AttentionFwdParams {
  const T* q = nullptr;         // [nq, heads, head_dim]
  const T* k = nullptr;         // [nk, kv_heads, head_dim]; query head h reads h / (heads/kv_heads)
  const T* v = nullptr;         // [nk, kv_heads, value_dim]
  const float* bias = nullptr;  // [nk, kv_heads] added to the scaled scores, -inf allowed; or null
  AttentionOpenKeys<T> open;    // of k, v and bias, only without a mask window; leaves out closed keys
  T* out = nullptr;             // [nq, heads, value_dim]; 0 for a row that sees nothing
  float* partial = nullptr;     // the same in fp32, for a merge; written instead of out if not null
  float* lse = nullptr;         // [nq, heads] natural log; -inf for a row that sees nothing
  std::int64_t q_stride = 0, k_stride = 0, v_stride = 0, out_stride = 0;  // out_stride: partial too
  int query_rows = 0, key_rows = 0;  // nq and nk, for open and the copy engine's bounds
  int heads = 0, kv_heads = 0, head_dim = 0, value_dim = 0;
  float scale = 1.0f;  // above 0
  AttentionMask mask;
  AttentionSchedule schedule;
};

/// Gradients from the merged out and lse of all parts of the softmax: this call may hold only some
/// of the keys. Rows of q, k, v outside every segment are not written.
template <class T>
struct AttentionBwdParams {
  const T* q = nullptr;  // as forward
  const T* k = nullptr;
  const T* v = nullptr;
  const float* bias = nullptr;
  AttentionOpenKeys<T> open;  // for the pass over queries
  /// [kv_heads, nk] of attention_closed_runs, for the pass over keys; null: no key tile is left out.
  const std::uint8_t* closed_runs = nullptr;
  const T* out = nullptr;       // [nq, heads, value_dim], read by attention_bwd_prepare only
  const float* lse = nullptr;   // [nq, heads], likewise
  const float* dlse = nullptr;  // [nq, heads], gradient that reaches lse, likewise; or null
  const T* dout = nullptr;      // [nq, heads, value_dim]
  T* dq = nullptr;              // [nq, heads, head_dim]
  T* dk = nullptr;              // [nk, kv_heads, head_dim]
  T* dv = nullptr;              // [nk, kv_heads, value_dim]
  float* dbias = nullptr;       // [nk, kv_heads]; null: not wanted
  /// attention_bwd_workspace floats, [2, heads, nq]: lse in units of log 2 (+inf for a row that
  /// sees nothing, so that its probabilities are 0), then rowsum(dout out) - dlse.
  float* stats = nullptr;
  std::int64_t q_stride = 0, k_stride = 0, v_stride = 0;
  std::int64_t out_stride = 0, dout_stride = 0;
  std::int64_t dq_stride = 0, dk_stride = 0, dv_stride = 0;
  int query_rows = 0;  // nq
  int key_rows = 0;    // nk, for open, closed_runs and the copy engine's bounds (sm_90a path)
  int heads = 0, kv_heads = 0, head_dim = 0, value_dim = 0;
  float scale = 1.0f;
  AttentionMask mask;
  AttentionSchedule schedule;
};

/// Rows of the work items a kernel wants from the schedule.
struct AttentionTiles {
  int fwd = 0;      // query tile of the forward pass
  int bwd_dq = 0;   // query tile of the backward pass
  int bwd_dkv = 0;  // key tile of the backward pass
};

}  // namespace lh::kernels
