#include "mixers/context_mix.h"

#include <algorithm>

#include <fmt/format.h>

#include "ops/attention.h"
#include "parallel/head_exchange.h"
#include "parallel/row_exchange.h"

namespace lh {
namespace {

/// Bytes of a row; 0 where undefined.
double row_bytes(const std::vector<Variable>& inputs) {
  double bytes = 0;
  for (const Variable& input : inputs)
    if (input.defined())
      bytes += static_cast<double>(input.size(1) * input.size(2)) *
               static_cast<double>(dtype_size(input.dtype()));
  return bytes;
}

/// Whether trading heads moves less than gathering keys and values, over all processes together. The
/// same on each of them. Both move every element twice in a training step, there and back.
bool heads_move_less(const MixInputs& inputs, const ContextLayout& context,
                     const AttentionMask& mask) {
  const int64_t n = context.group().size();
  int64_t heads = 0;  // of the output
  for (const auto* list : {&inputs.queries, &inputs.keys})
    for (const Variable& input : *list) {
      if (!input.defined()) continue;
      if (input.size(1) % n != 0) return false;
      heads = std::max(heads, input.size(1));
    }
  const double out_bytes = static_cast<double>(heads * inputs.v().size(2)) *
                           static_cast<double>(dtype_size(inputs.v().dtype()));
  const double rows = static_cast<double>(context.total_rows()) * static_cast<double>(n - 1) /
                      static_cast<double>(n);
  return rows * (row_bytes(inputs.queries) + row_bytes(inputs.keys) + out_bytes) <
         static_cast<double>(context.gathered_rows(mask)) * row_bytes(inputs.keys);
}

Variable mix_traded_heads(MixInputs inputs, const ContextLayout& context, const AttentionMask& mask,
                          double scale, const std::string& label, const Mix& mix) {
  for (auto* list : {&inputs.queries, &inputs.keys})
    for (Variable& input : *list)
      if (input.defined()) input = rows_to_heads(input, context, label);
  return heads_to_rows(mix(inputs, context.whole(mask, scale)), context, label);
}

Variable mix_gathered_keys(MixInputs inputs, const ContextLayout& context, const AttentionMask& mask,
                           double scale, const std::string& label, const Mix& mix) {
  const GatheredAttention& gathered = context.gathered(mask, scale);
  for (size_t i = 0; i < inputs.keys.size(); ++i)
    if (inputs.keys[i].defined())
      inputs.keys[i] = exchange_rows(inputs.keys[i], gathered.exchange, context.group(),
                                     label + (i == 0   ? " k"
                                              : i == 1 ? " v"
                                                       : fmt::format(" with keys {}", i - 1)));
  return mix(inputs, gathered.plan);
}

}  // namespace

ContextScheme context_scheme(const std::string& name) {
  if (name == "auto") return ContextScheme::kAuto;
  if (name == "gather") return ContextScheme::kGather;
  if (name == "heads") return ContextScheme::kHeads;
  fail<ConfigError>("context: expected auto, gather or heads, got '{}'", name);
}

Variable mix_in_context(MixInputs inputs, const SequenceLayout& layout, const AttentionMask& mask,
                        double scale, ContextScheme scheme, const std::string& label,
                        const Mix& mix) {
  const ContextLayout* context = layout.context();
  if (context == nullptr) return mix(inputs, layout.plan(mask, scale));
  if (scheme == ContextScheme::kAuto)
    scheme = heads_move_less(inputs, *context, mask) ? ContextScheme::kHeads : ContextScheme::kGather;
  if (scheme == ContextScheme::kHeads)
    return mix_traded_heads(std::move(inputs), *context, mask, scale, label, mix);
  return mix_gathered_keys(std::move(inputs), *context, mask, scale, label, mix);
}

Variable attend(const Variable& q, const Variable& k, const Variable& v,
                const SequenceLayout& layout, const AttentionMask& mask, double scale,
                ContextScheme scheme, const std::string& label) {
  return mix_in_context({{q}, {k, v}}, layout, mask, scale, scheme, label,
                        [](const MixInputs& in, std::shared_ptr<const AttentionPlan> plan) {
                          return attention(in.queries[0], in.k(), in.v(), std::move(plan));
                        });
}

}  // namespace lh
