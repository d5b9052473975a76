#include "mixers/attention_projections.h"

#include <algorithm>
#include <cmath>

#include "ops/attention_definition.h"
#include "ops/elementwise.h"
#include "ops/reshape.h"
#include "ops/rope.h"

namespace lh {

AttentionProjections::AttentionProjections(const MixerContext& context, bool queries)
    : heads_(context.model.num_heads),
      kv_heads_(context.model.resolved_num_kv_heads()),
      head_dim_(context.model.resolved_head_dim()),
      q_(queries ? std::optional<Linear>(std::in_place, context.store, context.prefix + ".q_proj",
                                         context.model.hidden_size, heads_ * head_dim_,
                                         context.model.qkv_bias, context.model.init_std)
                 : std::nullopt),
      k_(context.store, context.prefix + ".k_proj", context.model.hidden_size,
         kv_heads_ * head_dim_, context.model.qkv_bias, context.model.init_std),
      v_(context.store, context.prefix + ".v_proj", context.model.hidden_size,
         kv_heads_ * head_dim_, context.model.qkv_bias, context.model.init_std),
      // Residual branches start smaller, so that the stream's variance does not grow with depth
      // (GPT-2, section 2.3).
      o_(context.store, context.prefix + ".o_proj", heads_ * head_dim_, context.model.hidden_size,
         context.model.output_bias,
         context.model.init_std / std::sqrt(2.0 * static_cast<double>(context.model.num_layers))) {
  definitions_chosen();  // what is wrong with LH_NO_FUSED is said before anything is written
  if (context.model.qk_norm) {
    if (queries)
      q_norm_.emplace(context.store, context.prefix + ".q_norm", head_dim_,
                      context.model.rms_norm_eps);
    k_norm_.emplace(context.store, context.prefix + ".k_norm", head_dim_,
                    context.model.rms_norm_eps);
  }
  if (context.config.output_gate)
    gate_.emplace(context.store, context.prefix + ".o_gate", context.model.hidden_size,
                  heads_ * head_dim_, false, context.model.init_std);
  if (context.config.rope) rope_ = context.rope;
}

AttentionProjections::Heads AttentionProjections::project(const Variable& x,
                                                          const SequenceLayout& layout) const {
  const int64_t rows = x.size(0);
  Heads heads{q_ ? reshape((*q_)(x), {-1, heads_, head_dim_})
                 : Variable(Tensor::zeros({rows, heads_, head_dim_}, x.dtype(), x.device())),
              reshape(k_(x), {-1, kv_heads_, head_dim_}),
              reshape(v_(x), {-1, kv_heads_, head_dim_})};
  if (q_norm_) heads.q = (*q_norm_)(heads.q);
  if (k_norm_) heads.k = (*k_norm_)(heads.k);
  if (rope_ != nullptr) {
    const Tensor& table = rope_->table(layout.longest());
    if (q_) heads.q = rope(heads.q, table, layout.positions());
    heads.k = rope(heads.k, table, layout.positions());
  }
  return heads;
}

Variable AttentionProjections::output(const Variable& heads, const Variable& x) const {
  Variable flat = reshape(heads, {-1, heads_ * head_dim_});
  if (gate_) flat = sigmoid_gate(flat, (*gate_)(x));
  return o_(flat);
}

double AttentionProjections::scale() const {
  return 1 / std::sqrt(static_cast<double>(head_dim_));
}

double attention_flops(const SequenceLayout& layout, const AttentionMask& mask, int64_t heads,
                       int64_t head_dim) {
  double pairs = 0;
  for (const AttentionSegment& segment : layout.segments()) {
    for (int64_t i = 0; i < segment.query_length; ++i) {
      const int64_t causal = segment.query_offset + i + 1;
      if (mask.window == 0 || causal <= mask.window) pairs += static_cast<double>(causal);
      else
        pairs += static_cast<double>(mask.window + std::min(mask.sinks, causal - mask.window));
    }
  }
  return 4 * pairs * static_cast<double>(heads * head_dim);
}

bool AttentionProjections::is_recordable() const {
  return (rope_ == nullptr || !rope_->depends_on_length()) && !definitions_chosen();
}

}  // namespace lh
