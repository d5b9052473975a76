#include "mixers/parallax.h"

#include "backend/elementwise.h"
#include "backend/reduce.h"
#include "mixers/cached_attention.h"
#include "mixers/correction.h"
#include "nn/stable_rank.h"
#include "ops/elementwise.h"
#include "ops/reshape.h"
#include "ops/rope.h"

namespace lh {
namespace {

constexpr const char* kProbeNorm = "probe_norm";
constexpr const char* kProbeGate = "probe_gate";

}  // namespace

ParallaxMixer::ParallaxMixer(const MixerContext& context)
    : projections_(context, !context.config.uniform_weights),
      mask_{context.config.window, context.config.sinks},
      uniform_(context.config.uniform_weights),
      // A norm makes weights near zero large, so a zero probe with a norm has its gain at 0 instead.
      r_(context.store, context.prefix + ".r_proj", context.model.hidden_size,
         projections_.heads() * projections_.head_dim(), context.model.qkv_bias,
         context.config.zero_probe && !context.model.qk_norm ? 0 : context.model.init_std),
      store_(context.store),
      scheme_(context_scheme(context.config.context)),
      prefix_(context.prefix) {
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
  if (r_gate_) {
    const Variable gate = reshape((*r_gate_)(x), shape);
    if (layout.report() != nullptr) report_gate(*layout.report(), gate.value());
    r = sigmoid_gate(r, gate);
  }
  if (rope_ != nullptr) r = rope(r, rope_->table(layout.longest()), layout.positions());
  return r;
}

void ParallaxMixer::report_gate(MixerReport& report, const Tensor& logits) const {
  Tensor ones = Tensor::empty_like(logits), open = Tensor::empty_like(logits);
  Tensor total = Tensor::zeros({1}, DType::kF64, logits.device());
  LH_DISPATCH(logits.device(), "mixer report", fill(ones, 1));
  LH_DISPATCH(logits.device(), "mixer report", sigmoid_gate_forward(ones, logits, open));
  LH_DISPATCH(logits.device(), "mixer report", sum(open, total, false));
  ReportedMean& gate = report.mean(kProbeGate, prefix_);
  gate.sum += total.to(kCpuDevice).item();
  gate.weight += static_cast<double>(logits.numel());
}

Variable ParallaxMixer::forward(const Variable& x, const SequenceLayout& layout) const {
  const auto [q, k, v] = projections_.project(x, layout);
  const auto mix = [this, report = layout.report()](const MixInputs& in,
                                                    std::shared_ptr<const AttentionPlan> plan) {
    const Variable& r = in.queries[1];
    const auto [out, result] = parallax_attention(in.queries[0], r, in.k(), in.v(), std::move(plan));
    if (report != nullptr) {
      report_correction(*report, prefix_, result.out, result.intercept);
      ReportedMean& norm = report->root_mean_square(kProbeNorm, prefix_);
      norm.sum += squares_of(r.value());
      norm.weight += static_cast<double>(r.size(0) * r.size(1));
    }
    return out;
  };
  return projections_.output(mix_in_context({{q, probe(x, layout)}, {k, v}}, layout, mask_,
                                            projections_.scale(), scheme_, prefix_, mix),
                             x);
}

std::unique_ptr<MixerCache> ParallaxMixer::make_cache(int64_t max_tokens) const {
  return std::make_unique<KeyValueCache>(cache_rows(mask_, max_tokens), projections_.kv_heads(),
                                         projections_.head_dim(), store_.compute_dtype(),
                                         store_.device());
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

void ParallaxMixer::describe(MixerReport& report) const {
  correction_ratio(report, prefix_);
  report.root_mean_square(kProbeNorm, prefix_);
  if (r_gate_) report.mean(kProbeGate, prefix_);
  for (const auto& [name, projection] :
       {std::pair{"probe", ".r_proj"}, {"query", ".q_proj"}, {"key", ".k_proj"}})
    if (const Parameter* weight = store_.find(prefix_ + projection + ".weight")) {
      ReportedMean& rank = report.mean(fmt::format("{}_stable_rank", name), prefix_);
      rank.sum += stable_rank(weight->variable.value());  // whole where the master is not
      ++rank.weight;
    }
}

}  // namespace lh
