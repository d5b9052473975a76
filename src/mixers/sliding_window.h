// Softmax attention over the last `window` tokens, the current one counted (Beltagy et al. 2020;
// Mistral), and over the first `sinks` tokens of the document (Xiao et al. 2023, StreamingLLM).
#pragma once

#include "mixers/attention_projections.h"
#include "mixers/context_mix.h"

namespace lh {

class SlidingWindowMixer final : public TokenMixer {
 public:
  explicit SlidingWindowMixer(const MixerContext& context);
  Variable forward(const Variable& x, const SequenceLayout& layout) const override;
  std::unique_ptr<MixerCache> make_cache(int64_t max_tokens) const override;
  Variable forward_cached(const Variable& x, const SequenceLayout& rows,
                          MixerCache& cache) const override;
  bool is_recordable() const override { return projections_.is_recordable(); }
  MixerFlops flops(const SequenceLayout& layout) const override;
  ContextParallelClass context_parallel_class() const override {
    return ContextParallelClass::kHalo;
  }

 private:
  AttentionProjections projections_;
  AttentionMask mask_;
  ContextScheme scheme_;
  std::string prefix_;
  DType dtype_;
  Device device_;
};

}  // namespace lh
