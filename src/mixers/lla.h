// Exact local linear attention (arXiv 2510.01450): the reference that Parallax approximates, for small
// models; its attention is computed on the host.
#pragma once

#include "mixers/attention_projections.h"
#include "mixers/context_mix.h"
#include "ops/lla_attention.h"

namespace lh {

class LlaMixer final : public TokenMixer {
 public:
  explicit LlaMixer(const MixerContext& context);
  Variable forward(const Variable& x, const SequenceLayout& layout) const override;
  std::unique_ptr<MixerCache> make_cache(int64_t max_tokens) const override;
  Variable forward_cached(const Variable& x, const SequenceLayout& rows,
                          MixerCache& cache) const override;
  void describe(MixerReport& report) const override;
  MixerFlops flops(const SequenceLayout& layout) const override;
  /// Covariances merge across shards like sums of weights, but keys and values of a whole head are
  /// simpler to gather.
  ContextParallelClass context_parallel_class() const override {
    return mask_.window > 0 ? ContextParallelClass::kHalo : ContextParallelClass::kLogSumExp;
  }

 private:
  AttentionProjections projections_;
  AttentionMask mask_;
  LlaOptions options_;
  ContextScheme scheme_;
  std::string prefix_;
  DType dtype_;
  Device device_;
};

}  // namespace lh
