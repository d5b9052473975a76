#include "mixers/softmax.h"

#include "mixers/key_value_cache.h"
#include "ops/attention.h"

namespace lh {

SoftmaxMixer::SoftmaxMixer(const MixerContext& context)
    : projections_(context),
      scheme_(context_scheme(context.config.context)),
      prefix_(context.prefix),
      dtype_(context.store.compute_dtype()),
      device_(context.store.device()) {}

Variable SoftmaxMixer::forward(const Variable& x, const SequenceLayout& layout) const {
  const auto [q, k, v] = projections_.project(x, layout);
  return projections_.output(
      attend(q, k, v, layout, {}, projections_.scale(), scheme_, prefix_), x);
}

std::unique_ptr<MixerCache> SoftmaxMixer::make_cache(int64_t max_tokens) const {
  return std::make_unique<KeyValueCache>(max_tokens, projections_.kv_heads(),
                                         projections_.head_dim(), dtype_, device_);
}

Variable SoftmaxMixer::forward_cached(const Variable& x, const SequenceLayout& rows,
                                      MixerCache& cache) const {
  auto& past = dynamic_cast<KeyValueCache&>(cache);
  const auto [q, k, v] = projections_.project(x, rows);
  const int64_t seen = past.length();
  past.append(k.value(), v.value());
  auto plan = std::make_shared<AttentionPlan>();
  plan->segments = {{0, x.size(0), 0, past.length(), seen}};
  plan->scale = projections_.scale();
  return projections_.output(
      attention(q, Variable(past.keys()), Variable(past.values()), std::move(plan)), x);
}

MixerFlops SoftmaxMixer::flops(const SequenceLayout& layout) const {
  return {attention_flops(layout, {}, projections_.heads(), projections_.head_dim())};
}

}  // namespace lh
