#include "mixers/lla.h"

#include "mixers/cached_attention.h"
#include "mixers/correction.h"
#include "ops/attention.h"

namespace lh {

LlaMixer::LlaMixer(const MixerContext& context)
    : projections_(context),
      mask_{context.config.window, context.config.sinks},
      options_{context.config.ridge, context.config.frozen_ridge},
      scheme_(context_scheme(context.config.context)),
      prefix_(context.prefix),
      dtype_(context.store.compute_dtype()),
      device_(context.store.device()) {}

Variable LlaMixer::forward(const Variable& x, const SequenceLayout& layout) const {
  const auto [q, k, v] = projections_.project(x, layout);
  const auto mix = [this, report = layout.report()](const MixInputs& in,
                                                    std::shared_ptr<const AttentionPlan> plan) {
    const Variable out = lla_attention(in.queries[0], in.k(), in.v(), plan, options_);
    if (report != nullptr) {
      const GradMode off(false);
      report_correction(*report, prefix_, out.value(),
                        attention(in.queries[0], in.k(), in.v(), plan).value());
    }
    return out;
  };
  return projections_.output(mix_in_context({{q}, {k, v}}, layout, mask_, projections_.scale(),
                                            scheme_, prefix_, mix),
                             x);
}

std::unique_ptr<MixerCache> LlaMixer::make_cache(int64_t max_tokens) const {
  return std::make_unique<KeyValueCache>(cache_rows(mask_, max_tokens), projections_.kv_heads(),
                                         projections_.head_dim(), dtype_, device_);
}

Variable LlaMixer::forward_cached(const Variable& x, const SequenceLayout& rows,
                                  MixerCache& cache) const {
  auto& past = dynamic_cast<KeyValueCache&>(cache);
  const auto heads = projections_.project(x, rows);
  const auto attend = [&](int64_t begin, int64_t count, const Tensor& keys, const Tensor& values,
                          std::shared_ptr<const AttentionPlan> plan) {
    return lla_attention(Variable(heads.q.value().slice(0, begin, begin + count)), Variable(keys),
                         Variable(values), std::move(plan), options_)
        .value();
  };
  return projections_.output(Variable(attend_cached(heads.k.value(), heads.v.value(), mask_,
                                                    projections_.scale(), past, attend)),
                             x);
}

void LlaMixer::describe(MixerReport& report) const {
  correction_ratio(report, prefix_);
}

MixerFlops LlaMixer::flops(const SequenceLayout& layout) const {
  // Beside scores, probe scores, k_mean and values, each pair adds to half a [d, d] covariance; each
  // query factorises it, d^3 / 3.
  const auto d = static_cast<double>(projections_.head_dim());
  const double two_products =
      attention_flops(layout, mask_, projections_.heads(), projections_.head_dim());
  return {two_products * (2 + d / 4) +
          static_cast<double>(layout.rows() * projections_.heads()) * d * d * d / 3};
}

}  // namespace lh
