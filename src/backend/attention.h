// Softmax attention over packed sequences, tiled as in FlashAttention (Dao et al. 2022): memory is
// O(tokens), never tokens x tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend_state.h"
#include "tensor/dispatch.h"
#include "tensor/tensor.h"

namespace lh {

/// A run of queries that sees one run of keys. In training both are the same document; when
/// decoding, or under context parallelism, the queries begin `query_offset` positions after the
/// first key.
struct AttentionSegment {
  int64_t query_begin = 0, query_length = 0;  // rows of q
  int64_t key_begin = 0, key_length = 0;      // rows of k and v
  int64_t query_offset = 0;                   // position of the first query minus that of first key
};

/// Query at position i sees key at position j (both relative to the segment's first key) when
/// j <= i and (window == 0 or i - j < window or j < sinks).
struct AttentionMask {
  int64_t window = 0;       // 0: unlimited; else counts the current token
  int64_t sinks = 0;        // first tokens of a segment that stay visible beyond the window
  int64_t bias_window = 0;  // a bias per key is left out where i - j < bias_window
  /// The bias closes keys (hard gates), so that it pays to look for them. Changes no result but by the
  /// order of sums; the CPU looks by itself.
  bool bias_closes = false;

  bool operator==(const AttentionMask&) const = default;
};

/// Unchanged once an operation has seen it, except through refresh_plan().
struct AttentionPlan {
  std::vector<AttentionSegment> segments;
  AttentionMask mask;
  double scale = 1;  // of q k^T, usually 1 / sqrt(head_dim)
  /// Not 0: more than the segments there will ever be. Launches and device arrays are then those of
  /// any cut of the same rows into fewer segments.
  int64_t segment_capacity = 0;
  mutable std::shared_ptr<BackendState> backend_state = nullptr;
};

}  // namespace lh

LH_BACKENDS(
    /// q, out [nq, heads, d], k, v [nk, kv_heads, d] (v may have another d); heads is a multiple of
    /// kv_heads (query head h reads kv head h / (heads / kv_heads)); inner two dimensions contiguous,
    /// any row stride. lse [nq, heads] f32 (f64 for f64): log-sum-exp of the scaled scores, -inf
    /// for a row that sees nothing, whose output is 0. Rows outside every segment are written 0.
    /// bias [nk, kv_heads], contiguous, dtype of lse, is added to the scaled scores outside
    /// mask.bias_window; -inf closes a key. The CPU's forward pass spends next to nothing on a closed
    /// key, nor does CUDA's with mask.bias_closes and no mask.window, for copies of the open ones in
    /// scratch as large as k and v. Undefined: none.
    void attention_forward(const Tensor& q, const Tensor& k, const Tensor& v,
                           const AttentionPlan& plan, Tensor& out, Tensor& lse,
                           const Tensor& bias = {});
    /// After other segments over the same rows were put into a plan with a segment_capacity: rewrites
    /// what the backend keeps of it, in place and in stream order.
    void refresh_plan(const AttentionPlan& plan);
    /// Gradients from the saved out and lse (recomputation of the scores by tiles).
    /// dq like q, dk and dv like k and v, all written; segments may share keys. Deterministic.
    /// With mask.bias_closes CUDA leaves out closed keys for dq as forward does, and tiles of 32 to 128 that
    /// are all closed for dk, dv and dbias.
    /// dbias like bias, summed over the query heads of a group, is written when it is not null.
    void attention_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                            const Tensor& lse, const Tensor& d_out, const AttentionPlan& plan,
                            Tensor& dq, Tensor& dk, Tensor& dv, const Tensor& bias = {},
                            Tensor* dbias = nullptr);)
