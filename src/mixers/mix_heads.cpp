#include "mixers/mix_heads.h"

#include "parallel/head_exchange.h"

namespace lh {

Variable mix_heads(std::vector<Variable> inputs, const SequenceLayout& layout,
                   const AttentionMask& mask, double scale, const std::string& label,
                   const MixHeads& mix) {
  const ContextLayout* context = layout.context();
  if (context == nullptr) return mix(inputs, layout.plan(mask, scale));
  for (Variable& input : inputs)
    if (input.defined()) input = rows_to_heads(input, *context, label);
  return heads_to_rows(mix(inputs, context->whole(mask, scale)), *context, label);
}

}  // namespace lh
