// Parallax (arXiv 2605.29157): softmax attention corrected by the covariance of values and keys along a
// learned probe per query head. The probe is made like the query, with a projection, a norm and
// rotary positions of its own; without it (zero_probe) the mixer is softmax attention. Without queries
// (uniform_weights) it is affine linear attention.
#pragma once

#include "mixers/attention_projections.h"
#include "mixers/context_mix.h"
#include "ops/parallax_attention.h"

namespace lh {

class ParallaxMixer final : public TokenMixer {
 public:
  explicit ParallaxMixer(const MixerContext& context);
  Variable forward(const Variable& x, const SequenceLayout& layout) const override;
  /// Keys and values only: probes are made anew from the rows that come, as queries are.
  std::unique_ptr<MixerCache> make_cache(int64_t max_tokens) const override;
  Variable forward_cached(const Variable& x, const SequenceLayout& rows,
                          MixerCache& cache) const override;
  /// How large the correction and the probe are, how open its gate is, and the stable ranks (nn/stable_rank.h) of
  /// the projections that weigh keys.
  void describe(MixerReport& report) const override;
  MixerFlops flops(const SequenceLayout& layout) const override;
  bool is_recordable() const override { return projections_.is_recordable(); }
  ContextParallelClass context_parallel_class() const override {
    return mask_.window > 0 ? ContextParallelClass::kHalo : ContextParallelClass::kLogSumExp;
  }

 private:
  void report_gate(MixerReport& report, const Tensor& logits) const;
  Variable probe(const Variable& x, const SequenceLayout& layout) const;  // [N, H, d]

  AttentionProjections projections_;
  AttentionMask mask_;
  bool uniform_;
  Linear r_;
  std::optional<RmsNorm> r_norm_;
  std::optional<Linear> r_gate_;
  std::shared_ptr<const RopeTable> rope_;  // nullptr: the probe is not rotated
  const ParameterStore& store_;
  ContextScheme scheme_;
  std::string prefix_;
};

}  // namespace lh
