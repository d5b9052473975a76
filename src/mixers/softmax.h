// Grouped-query softmax attention (Ainslie et al. 2023) over the whole past, with optional QK-norm,
// NoPE and output gate.
#pragma once

#include "mixers/attention_projections.h"
#include "mixers/context_mix.h"

namespace lh {

class SoftmaxMixer final : public TokenMixer {
 public:
  explicit SoftmaxMixer(const MixerContext& context);
  Variable forward(const Variable& x, const SequenceLayout& layout) const override;
  std::unique_ptr<MixerCache> make_cache(int64_t max_tokens) const override;
  Variable forward_cached(const Variable& x, const SequenceLayout& rows,
                          MixerCache& cache) const override;
  bool is_recordable() const override { return projections_.is_recordable(); }
  MixerFlops flops(const SequenceLayout& layout) const override;
  ContextParallelClass context_parallel_class() const override {
    return ContextParallelClass::kLogSumExp;
  }

 private:
  AttentionProjections projections_;
  ContextScheme scheme_;
  std::string prefix_;
  DType dtype_;
  Device device_;
};

}  // namespace lh
