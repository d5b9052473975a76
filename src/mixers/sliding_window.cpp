#include "mixers/sliding_window.h"

#include "mixers/cached_attention.h"
#include "ops/attention.h"

namespace lh {

SlidingWindowMixer::SlidingWindowMixer(const MixerContext& context)
    : projections_(context),
      mask_{context.config.window, context.config.sinks},
      scheme_(context_scheme(context.config.context)),
      prefix_(context.prefix),
      dtype_(context.store.compute_dtype()),
      device_(context.store.device()) {
  if (mask_.window < 1)
    fail<ConfigError>("{}: a sliding_window mixer needs window >= 1, got {}", context.prefix,
                      mask_.window);
}

Variable SlidingWindowMixer::forward(const Variable& x, const SequenceLayout& layout) const {
  const auto [q, k, v] = projections_.project(x, layout);
  return projections_.output(
      attend(q, k, v, layout, mask_, projections_.scale(), scheme_, prefix_), x);
}

std::unique_ptr<MixerCache> SlidingWindowMixer::make_cache(int64_t max_tokens) const {
  return std::make_unique<KeyValueCache>(cache_rows(mask_, max_tokens), projections_.kv_heads(),
                                         projections_.head_dim(), dtype_, device_);
}

Variable SlidingWindowMixer::forward_cached(const Variable& x, const SequenceLayout& rows,
                                            MixerCache& cache) const {
  auto& past = dynamic_cast<KeyValueCache&>(cache);
  const auto heads = projections_.project(x, rows);
  const auto attend = [&](int64_t begin, int64_t count, const Tensor& keys, const Tensor& values,
                          std::shared_ptr<const AttentionPlan> plan) {
    return attention(Variable(heads.q.value().slice(0, begin, begin + count)), Variable(keys),
                     Variable(values), std::move(plan))
        .value();
  };
  return projections_.output(Variable(attend_cached(heads.k.value(), heads.v.value(), mask_,
                                                    projections_.scale(), past, attend)),
                             x);
}

MixerFlops SlidingWindowMixer::flops(const SequenceLayout& layout) const {
  return {attention_flops(layout, mask_, projections_.heads(), projections_.head_dim())};
}

}  // namespace lh
