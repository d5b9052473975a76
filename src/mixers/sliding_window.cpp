#include "mixers/sliding_window.h"

#include <algorithm>

#include "backend/elementwise.h"
#include "mixers/key_value_cache.h"
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
  // Sinks, the window, and room for as many new rows again, so that rows move down only once in
  // `window` tokens.
  return std::make_unique<KeyValueCache>(std::min(max_tokens, mask_.sinks + 2 * mask_.window),
                                         projections_.kv_heads(), projections_.head_dim(), dtype_,
                                         device_);
}

Variable SlidingWindowMixer::forward_cached(const Variable& x, const SequenceLayout& rows,
                                            MixerCache& cache) const {
  auto& past = dynamic_cast<KeyValueCache&>(cache);
  const auto [q, k, v] = projections_.project(x, rows);
  Tensor heads = Tensor::empty(q.shape(), q.dtype(), q.device());
  // New rows enter at most a window at a time. Dropping rows between the sinks and the window
  // shifts all later rows alike, so the mask over the kept rows stays the mask over positions.
  for (int64_t begin = 0; begin < x.size(0);) {
    const int64_t count = std::min(x.size(0) - begin, mask_.window);
    if (past.length() + count > past.capacity())
      past.erase(mask_.sinks, past.length() - (mask_.window - 1));
    const int64_t seen = past.length();
    past.append(k.value().slice(0, begin, begin + count), v.value().slice(0, begin, begin + count));
    auto plan = std::make_shared<AttentionPlan>();
    plan->segments = {{0, count, 0, past.length(), seen}};
    plan->mask = mask_;
    plan->scale = projections_.scale();
    Tensor out = heads.slice(0, begin, begin + count);
    const Variable part = attention(Variable(q.value().slice(0, begin, begin + count)),
                                    Variable(past.keys()), Variable(past.values()), plan);
    LH_DISPATCH(out.device(), "sliding_window", copy(part.value(), out));
    begin += count;
  }
  return projections_.output(Variable(heads), x);
}

MixerFlops SlidingWindowMixer::flops(const SequenceLayout& layout) const {
  return {attention_flops(layout, mask_, projections_.heads(), projections_.head_dim())};
}

}  // namespace lh
