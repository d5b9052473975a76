#include "mixers/parallax.h"

#include "mixers/cached_attention.h"
#include "mixers/mix_heads.h"
#include "nn/stable_rank.h"
#include "ops/elementwise.h"
#include "ops/reshape.h"
#include "ops/rope.h"

namespace lh {

ParallaxMixer::ParallaxMixer(const MixerContext& context)
    : projections_(context, !context.config.uniform_weights),
      mask_{context.config.window, context.config.sinks},
      uniform_(context.config.uniform_weights),
      // A norm makes weights near zero large, so a zero probe with a norm has its gain at 0 instead.
      r_(context.store, context.prefix + ".r_proj", context.model.hidden_size,
         projections_.heads() * projections_.head_dim(), context.model.qkv_bias,
         context.config.zero_probe && !context.model.qk_norm ? 0 : context.model.init_std),
      r_weight_(context.store.find(context.prefix + ".r_proj.weight")),
      prefix_(context.prefix),
      dtype_(context.store.compute_dtype()),
      device_(context.store.device()) {
  if (!device_.is_like_cpu())
    fail<ConfigError>("{}: a parallax mixer computes on the CPU only; set run.device: cpu",
                      context.prefix);
  if (context.model.qk_norm)
    r_norm_.emplace(context.store, context.prefix + ".r_norm", projections_.head_dim(),
                    context.model.rms_norm_eps, context.config.zero_probe ? 0 : 1);
  if (context.config.probe_gate)
    r_gate_.emplace(context.store, context.prefix + ".r_gate", context.model.hidden_size,
                    projections_.heads() * projections_.head_dim(), false, context.model.init_std);
  if (context.config.rope && context.config.probe_rope) rope_ = context.rope;
}

Variable ParallaxMixer::probe(const Variable& x, const SequenceLayout& layout) const {
  const Shape shape{-1, projections_.heads(), projections_.head_dim()};
  Variable r = reshape(r_(x), shape);
  if (r_norm_) r = (*r_norm_)(r);
  // After the norm, which would undo it.
  if (r_gate_) r = sigmoid_gate(r, reshape((*r_gate_)(x), shape));
  if (rope_ != nullptr) r = rope(r, rope_->table(layout.longest()), layout.positions());
  return r;
}

Variable ParallaxMixer::forward(const Variable& x, const SequenceLayout& layout) const {
  const auto [q, k, v] = projections_.project(x, layout);
  const auto mix = [this](const std::vector<Variable>& heads,
                          std::shared_ptr<const AttentionPlan> plan) {
    return parallax_attention(heads[0], heads[1], heads[2], heads[3], std::move(plan)).out;
  };
  return projections_.output(mix_heads({q, probe(x, layout), k, v}, layout, mask_,
                                       projections_.scale(), prefix_, mix),
                             x);
}

std::unique_ptr<MixerCache> ParallaxMixer::make_cache(int64_t max_tokens) const {
  return std::make_unique<KeyValueCache>(cache_rows(mask_, max_tokens), projections_.kv_heads(),
                                         projections_.head_dim(), dtype_, device_);
}

Variable ParallaxMixer::forward_cached(const Variable& x, const SequenceLayout& rows,
                                       MixerCache& cache) const {
  auto& past = dynamic_cast<KeyValueCache&>(cache);
  const auto heads = projections_.project(x, rows);
  const Variable r = probe(x, rows);
  const auto attend = [&](int64_t begin, int64_t count, const Tensor& keys, const Tensor& values,
                          std::shared_ptr<const AttentionPlan> plan) {
    const auto part = [&](const Variable& of) {
      return Variable(of.value().slice(0, begin, begin + count));
    };
    return parallax_attention(part(heads.q), part(r), Variable(keys), Variable(values),
                              std::move(plan))
        .out.value();
  };
  return projections_.output(Variable(attend_cached(heads.k.value(), heads.v.value(), mask_,
                                                    projections_.scale(), past, attend)),
                             x);
}

MixerFlops ParallaxMixer::flops(const SequenceLayout& layout) const {
  // Four products per pair where softmax attention has two; three without queries.
  const double products = uniform_ ? 3 : 4;
  return {attention_flops(layout, mask_, projections_.heads(), projections_.head_dim()) * products /
          2};
}

ParallaxDiagnostics ParallaxMixer::diagnose(const Variable& x, const SequenceLayout& layout) const {
  const GradMode off(false);
  const auto [q, k, v] = projections_.project(x, layout);
  const Variable r = probe(x, layout);
  const auto plan = layout.plan(mask_, projections_.scale());
  return parallax_diagnostics(parallax_attention(q, r, k, v, plan).result, r.value());
}

double ParallaxMixer::probe_stable_rank() const {
  return stable_rank(r_weight_->master);
}

}  // namespace lh
