#include "mixers/attend.h"

#include "mixers/mix_heads.h"
#include "parallel/row_exchange.h"

namespace lh {
namespace {

/// Whether trading heads moves less than gathering keys and values, over all processes together. The
/// same on each of them. Both move every element twice in a training step, there and back.
bool heads_move_less(const Variable& q, const Variable& k, const Variable& v,
                     const ContextLayout& context, const AttentionMask& mask) {
  const int64_t n = context.group().size();
  if (q.size(1) % n != 0 || k.size(1) % n != 0) return false;
  const auto key_row = static_cast<double>(k.size(1) * (k.size(2) + v.size(2)));
  const auto query_row = static_cast<double>(q.size(1) * (q.size(2) + v.size(2)));
  const double rows = static_cast<double>(context.total_rows()) * static_cast<double>(n - 1) /
                      static_cast<double>(n);
  return rows * (query_row + key_row) <
         static_cast<double>(context.gathered_rows(mask)) * key_row;
}

}  // namespace

ContextScheme context_scheme(const std::string& name) {
  if (name == "auto") return ContextScheme::kAuto;
  if (name == "gather") return ContextScheme::kGather;
  if (name == "heads") return ContextScheme::kHeads;
  fail<ConfigError>("context: expected auto, gather or heads, got '{}'", name);
}

Variable attend(const Variable& q, const Variable& k, const Variable& v,
                const SequenceLayout& layout, const AttentionMask& mask, double scale,
                ContextScheme scheme, const std::string& label) {
  const ContextLayout* context = layout.context();
  if (context == nullptr) return attention(q, k, v, layout.plan(mask, scale));
  if (scheme == ContextScheme::kAuto)
    scheme = heads_move_less(q, k, v, *context, mask) ? ContextScheme::kHeads
                                                      : ContextScheme::kGather;
  if (scheme == ContextScheme::kHeads)
    return mix_heads({q, k, v}, layout, mask, scale, label,
                     [](const std::vector<Variable>& heads, auto plan) {
                       return attention(heads[0], heads[1], heads[2], std::move(plan));
                     });
  const GatheredAttention& gathered = context->gathered(mask, scale);
  return attention(q, exchange_rows(k, gathered.exchange, context->group(), label + " k"),
                   exchange_rows(v, gathered.exchange, context->group(), label + " v"),
                   gathered.plan);
}

}  // namespace lh
