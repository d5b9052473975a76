// The parts that softmax-style mixers have in common: q, k, v and output projections, optional
// per-head QK-norm, rotary positions and an output gate. Not a mixer itself.
#pragma once

#include <optional>

#include "mixers/mixer.h"
#include "nn/layers.h"

namespace lh {

class AttentionProjections {
 public:
  /// `queries` false: q is zeros, without parameters (all keys weigh the same).
  explicit AttentionProjections(const MixerContext& context, bool queries = true);

  struct Heads {
    Variable q;  // [N, H, d], normed and rotated
    Variable k;  // [N, G, d], likewise
    Variable v;  // [N, G, d]
  };
  Heads project(const Variable& x, const SequenceLayout& layout) const;

  /// Heads' outputs [N, H, d] to [N, D]; x is the mixer's input, which the gate reads.
  Variable output(const Variable& heads, const Variable& x) const;

  /// As TokenMixer::is_recordable(): no table that depends on the longest document, and no definition, which is
  /// computed on the host.
  bool is_recordable() const;

  int64_t heads() const { return heads_; }
  int64_t kv_heads() const { return kv_heads_; }
  int64_t head_dim() const { return head_dim_; }
  double scale() const;  // 1 / sqrt(d)

 private:
  int64_t heads_, kv_heads_, head_dim_;
  std::optional<Linear> q_;
  Linear k_, v_, o_;
  std::optional<RmsNorm> q_norm_, k_norm_;
  std::optional<Linear> gate_;
  std::shared_ptr<const RopeTable> rope_;  // nullptr: no position encoding
};

/// Multiply-adds (times two) of q k^T and p v over the visible pairs of every segment.
double attention_flops(const SequenceLayout& layout, const AttentionMask& mask, int64_t heads,
                       int64_t head_dim);

}  // namespace lh
