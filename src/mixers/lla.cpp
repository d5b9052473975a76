#include "mixers/lla.h"

#include "mixers/cached_attention.h"
#include "mixers/mix_heads.h"

namespace lh {

LlaMixer::LlaMixer(const MixerContext& context)
    : projections_(context),
      mask_{context.config.window, context.config.sinks},
      options_{context.config.ridge, context.config.frozen_ridge},
      prefix_(context.prefix),
      dtype_(context.store.compute_dtype()),
      device_(context.store.device()) {
  if (!device_.is_like_cpu())
    fail<ConfigError>("{}: an lla mixer computes on the CPU only; set run.device: cpu",
                      context.prefix);
}

Variable LlaMixer::forward(const Variable& x, const SequenceLayout& layout) const {
  const auto [q, k, v] = projections_.project(x, layout);
  const auto mix = [this](const std::vector<Variable>& heads,
                          std::shared_ptr<const AttentionPlan> plan) {
    return lla_attention(heads[0], heads[1], heads[2], std::move(plan), options_);
  };
  return projections_.output(
      mix_heads({q, k, v}, layout, mask_, projections_.scale(), prefix_, mix), x);
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
