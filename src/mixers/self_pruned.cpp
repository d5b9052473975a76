#include "mixers/self_pruned.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/elementwise.h"
#include "base/philox.h"
#include "mixers/cached_attention.h"
#include "mixers/gate_control.h"
#include "mixers/self_pruned_cache.h"
#include "mixers/weighted_cache.h"
#include "ops/attention.h"
#include "ops/elementwise.h"
#include "ops/linear.h"
#include "ops/reshape.h"
#include "ops/utility_gate.h"

namespace lh {
namespace {

/// First value of the logits' bias: utilities start at 0.993, so that training starts dense.
constexpr double kOpenLogit = 5;

AttentionMask biased_outside(int64_t window) {
  AttentionMask mask;
  mask.bias_window = window;
  return mask;
}

/// [N, G] bias of hard gates as bits on the host.
std::vector<uint8_t> kept(const Tensor& hard_bias) {
  const Tensor host = hard_bias.to(kCpuDevice);
  std::vector<uint8_t> bits(static_cast<size_t>(host.numel()));
  dispatch_float(host.dtype(), "sp_kv", [&]<typename T>() {
    std::transform(host.data<T>(), host.data<T>() + host.numel(), bits.begin(),
                   [](T bias) { return std::isfinite(static_cast<accumulate_t<T>>(bias)) ? 1 : 0; });
  });
  return bits;
}

/// Names the draws of a mixer in a run's step (base/philox.h).
uint64_t draw_key(uint64_t seed, const std::string& mixer) {
  uint64_t stream = 0xcbf29ce484222325ull;  // FNV-1a
  for (const char c : mixer) stream = (stream ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  return Philox(seed, stream).next_u64();
}

/// How many rows of its document follow each row of this process, wherever they are.
std::vector<int64_t> rows_after(const SequenceLayout& layout) {
  const ContextLayout* context = layout.context();
  const std::span<const AttentionSegment> documents =
      context == nullptr ? layout.segments() : context->whole_segments();
  const RowSet held = context == nullptr ? RowSet{{0, layout.rows()}} : context->held();
  std::vector<int64_t> after;
  auto document = documents.begin();
  for (const RowRange& range : held)
    for (int64_t row = range.begin; row < range.end; ++row) {
      while (row >= document->key_begin + document->key_length) ++document;
      after.push_back(document->key_begin + document->key_length - 1 - row);
    }
  return after;
}

}  // namespace

SelfPrunedMixer::SelfPrunedMixer(const MixerContext& context)
    : projections_(context),
      scheme_(context_scheme(context.config.context)),
      prefix_(context.prefix),
      mask_(biased_outside(context.config.window)),
      threshold_(context.config.threshold),
      clip_(context.config.utility_clip),
      weighted_(context.config.weighted && context.config.has_learned_gates()),
      global_heads_(context.config.global_kv_heads),
      dtype_(context.store.compute_dtype()),
      device_(context.store.device()) {
  if (mask_.bias_window < 1)
    fail<ConfigError>("{}: an sp_kv mixer needs window >= 1, got {}", prefix_, mask_.bias_window);
  if (!(threshold_ > 0 && threshold_ < 1))
    fail<ConfigError>("{}: an sp_kv mixer needs 0 < threshold < 1, got {}", prefix_, threshold_);
  if (!global_heads_.empty()) {
    one_fixed_ = fixed_gates(1);
    return;
  }
  const ModelConfig& model = context.model;
  const int64_t inner = context.config.resolved_utility_hidden(model.hidden_size);
  const int64_t kv_heads = projections_.kv_heads();
  const auto create = [&](const char* name, const Shape& shape, ParameterKind kind, Init init) {
    return &context.store.create(prefix_ + ".utility." + name, shape, kind, init);
  };
  const Init normal = Init::normal(model.init_std);
  up_weight_ = create("up.weight", {inner, model.hidden_size}, ParameterKind::kMatrix, normal);
  up_bias_ = create("up.bias", {inner}, ParameterKind::kBias, Init::constant(0));
  down_weight_ = create("down.weight", {kv_heads, inner}, ParameterKind::kMatrix, normal);
  down_bias_ = create("down.bias", {kv_heads}, ParameterKind::kBias, Init::constant(kOpenLogit));
}

Variable SelfPrunedMixer::hard_gates(const std::vector<uint8_t>& bits, int64_t kv_heads) const {
  const DType wide = dtype_ == DType::kF64 ? DType::kF64 : DType::kF32;
  Tensor bias = Tensor::empty({static_cast<int64_t>(bits.size()) / kv_heads, kv_heads}, wide);
  dispatch_float(wide, "sp_kv", [&]<typename T>() {
    std::transform(bits.begin(), bits.end(), bias.data<T>(), [](uint8_t kept) {
      return kept != 0 ? T(0) : T(-std::numeric_limits<accumulate_t<T>>::infinity());
    });
  });
  return Variable(bias.to(device_));
}

Variable SelfPrunedMixer::fixed_gates(int64_t rows) const {
  const int64_t kv_heads = projections_.kv_heads();
  std::vector<uint8_t> bits(static_cast<size_t>(rows * kv_heads));
  for (size_t row = 0; row < bits.size(); row += static_cast<size_t>(kv_heads))
    for (const int64_t head : global_heads_) bits[row + static_cast<size_t>(head)] = 1;
  return hard_gates(bits, kv_heads);
}

Variable SelfPrunedMixer::gates(const Variable& x, const SequenceLayout& layout,
                                const GatePhase& phase) const {
  const int64_t kv_heads = projections_.kv_heads();
  if (!global_heads_.empty()) return x.size(0) == 1 ? one_fixed_ : fixed_gates(x.size(0));
  if (phase.control != nullptr) {
    if (weighted_)
      fail<ConfigError>("{}: gate controls replace gates that are open or closed; those of a mixer with "
                        "weighted: true are not",
                        prefix_);
    GatePhase learned = phase;
    learned.control = nullptr;
    std::vector<uint8_t> bits = kept(gates(x, layout, learned).value());
    phase.control->apply(prefix_, layout.segments(), mask_.bias_window, kv_heads, bits);
    return hard_gates(bits, kv_heads);
  }
  const Variable logits = utility_logits(x, !phase.learns());
  const UtilityGate gate = gate_of(phase, layout);
  if (phase.utilities != nullptr && phase.learns() && grad_enabled())  // once, recomputed or not
    add_utilities(logits, gate, *phase.utilities);
  return utility_gate(logits, gate);
}

Variable SelfPrunedMixer::utility_logits(const Variable& x, bool frozen) const {
  // A frozen weight is a constant: it gets no gradient, so the optimizer leaves it and its decay
  // alone. What reaches the hidden states through the gates still flows.
  const auto value = [&](const Parameter* p) {
    return frozen ? p->variable.detach() : p->variable;
  };
  const Variable inner = linear(x, value(up_weight_), value(up_bias_));
  return linear(sigmoid_gate(inner, inner), value(down_weight_), value(down_bias_));  // silu
}

UtilityGate SelfPrunedMixer::gate_of(const GatePhase& phase, const SequenceLayout& layout) const {
  UtilityGate gate;
  gate.mode = phase.mode;
  gate.alpha = phase.alpha;
  gate.threshold = phase.threshold.value_or(threshold_);
  gate.clip = clip_;
  gate.weighted = weighted_;
  if (!phase.learns()) return gate;
  gate.pull = phase.pull;
  gate.rows = layout.row_numbers();
  if (phase.mode == GateMode::kSample) gate.draw_key = draw_key(phase.draw_seed, prefix_);
  return gate;
}

AttentionMask SelfPrunedMixer::mask(const GatePhase& phase) const {
  AttentionMask mask = mask_;
  mask.bias_closes = !global_heads_.empty() || phase.control != nullptr ||
                     phase.mode == GateMode::kHard || phase.mode == GateMode::kSample;
  return mask;
}

void SelfPrunedMixer::report_density(const Variable& x, const SequenceLayout& layout) const {
  const GradMode off(false);
  GatePhase hard = layout.gates();
  hard.mode = GateMode::kHard;
  const std::vector<uint8_t> bits = kept(gates(x, layout, hard).value());
  const int64_t kv_heads = projections_.kv_heads();
  auto& shares = layout.report()->means(kKvDensity, prefix_, kv_heads);
  ReportedMean& held = layout.report()->mean(kCacheFraction, prefix_);
  const std::vector<int64_t> after = rows_after(layout);
  for (size_t row = 0; row < after.size(); ++row) {
    held.weight += static_cast<double>(kv_heads);
    if (after[row] < mask_.bias_window) {  // no query ever has the key outside its window
      held.sum += static_cast<double>(kv_heads);
      continue;
    }
    for (int64_t g = 0; g < kv_heads; ++g) {
      const uint8_t bit = bits[row * static_cast<size_t>(kv_heads) + static_cast<size_t>(g)];
      ReportedMean& share = shares[static_cast<size_t>(g)];
      share.sum += bit;
      ++share.weight;
      held.sum += bit;
    }
  }
}

Variable SelfPrunedMixer::forward(const Variable& x, const SequenceLayout& layout) const {
  if (layout.report() != nullptr) report_density(x, layout);
  const auto [q, k, v] = projections_.project(x, layout);
  // A gate is a head of size 1 where processes trade rows for heads.
  const Variable gate = reshape(gates(x, layout, layout.gates()), {-1, projections_.kv_heads(), 1});
  const auto mix = [](const MixInputs& in, std::shared_ptr<const AttentionPlan> plan) {
    const Variable& bias = in.keys[2];
    return attention(in.queries[0], in.k(), in.v(), std::move(plan),
                     reshape(bias, {-1, bias.size(1)}));
  };
  return projections_.output(mix_in_context({{q}, {k, v, gate}}, layout, mask(layout.gates()),
                                            scale(), scheme_, prefix_, mix),
                             x);
}

std::unique_ptr<MixerCache> SelfPrunedMixer::make_cache(int64_t max_tokens) const {
  if (weighted_)
    return std::make_unique<WeightedCache>(max_tokens, projections_.kv_heads(),
                                           projections_.head_dim(), dtype_, device_);
  return std::make_unique<SelfPrunedCache>(mask_.bias_window, max_tokens, projections_.kv_heads(),
                                           projections_.head_dim(), dtype_, device_);
}

Variable SelfPrunedMixer::forward_cached(const Variable& x, const SequenceLayout& rows,
                                         MixerCache& cache) const {
  if (weighted_) return forward_weighted(x, rows, dynamic_cast<WeightedCache&>(cache));
  auto& past = dynamic_cast<SelfPrunedCache&>(cache);
  const auto [q, k, v] = projections_.project(x, rows);
  GatePhase hard = rows.gates();
  hard.mode = GateMode::kHard;
  const Variable bias = gates(x, rows, hard);
  Variable mixed;
  if (x.size(0) == 1) {
    past.append(k.value(), v.value(), bias.value());
    mixed = Variable(past.attend(q.value(), scale()));
  } else {
    mixed = past.length() == 0 ? attention(q, k, v, rows.plan(mask(hard), scale()), bias)
                               : attend_after(past, q.value(), k.value(), v.value(), bias.value());
    past.append(k.value(), v.value(), bias.value());
  }
  return projections_.output(mixed, x);
}

Variable SelfPrunedMixer::forward_weighted(const Variable& x, const SequenceLayout& rows,
                                           WeightedCache& cache) const {
  const auto [q, k, v] = projections_.project(x, rows);
  GatePhase hard = rows.gates();
  hard.mode = GateMode::kHard;
  cache.append_bias(gates(x, rows, hard).value());
  const Tensor& queries = q.value();
  const auto attend = [&](int64_t begin, int64_t count, const Tensor& keys, const Tensor& values,
                          std::shared_ptr<const AttentionPlan> plan) {
    return attention(Variable(queries.slice(0, begin, begin + count)), Variable(keys), Variable(values),
                     std::move(plan), Variable(cache.bias(keys.size(0))))
        .value();
  };
  return projections_.output(
      Variable(attend_cached(k.value(), v.value(), mask(hard), scale(), cache.past(), attend)), x);
}

Variable SelfPrunedMixer::attend_after(const SelfPrunedCache& past, const Tensor& q,
                                       const Tensor& k, const Tensor& v, const Tensor& bias) const {
  const std::vector<SelfPrunedCache::OrderedHead> heads = past.ordered();
  const int64_t count = q.size(0), kv_heads = projections_.kv_heads(), d = projections_.head_dim();
  const int64_t group = projections_.heads() / kv_heads;
  int64_t total = 0;
  for (const auto& head : heads) total += head.k.size(0) + count;
  // Each kv head has keys of its own, so the heads become sequences of one kv head. Kept keys, then the
  // ring and the new rows in order of position: distances in the ring and after it are those of
  // positions, kept keys are farther than the window and open.
  Tensor queries = Tensor::empty({kv_heads * count, group, d}, q.dtype(), q.device());
  const Tensor keys = Tensor::empty({total, 1, d}, q.dtype(), q.device());
  const Tensor values = Tensor::empty({total, 1, d}, q.dtype(), q.device());
  const Tensor biases = Tensor::empty({total, 1}, bias.dtype(), q.device());
  const auto move = [](const Tensor& from, Tensor to) {
    LH_DISPATCH(to.device(), "sp_kv", copy(from, to));
  };
  auto plan = std::make_shared<AttentionPlan>();
  plan->mask = mask_;
  plan->mask.bias_closes = true;
  plan->scale = scale();
  int64_t first = 0;
  for (int64_t g = 0; g < kv_heads; ++g) {
    const auto& head = heads[static_cast<size_t>(g)];
    const int64_t old = head.k.size(0), fresh = first + old, end = fresh + count;
    std::vector<uint8_t> bits(static_cast<size_t>(old) - head.kept.size(), 1);
    bits.insert(bits.end(), head.kept.begin(), head.kept.end());
    move(hard_gates(bits, 1).value(), biases.slice(0, first, fresh));
    move(head.k, keys.slice(0, first, fresh));
    move(head.v, values.slice(0, first, fresh));
    move(bias.slice(1, g, g + 1), biases.slice(0, fresh, end));
    move(k.slice(1, g, g + 1), keys.slice(0, fresh, end));
    move(v.slice(1, g, g + 1), values.slice(0, fresh, end));
    move(q.slice(1, g * group, (g + 1) * group), queries.slice(0, g * count, (g + 1) * count));
    plan->segments.push_back({g * count, count, first, old + count, old});
    first = end;
  }
  const Variable mixed = attention(Variable(queries), Variable(keys), Variable(values),
                                   std::move(plan), Variable(biases));
  Tensor out = Tensor::empty(q.shape(), q.dtype(), q.device());
  for (int64_t g = 0; g < kv_heads; ++g)
    move(mixed.value().slice(0, g * count, (g + 1) * count),
         out.slice(1, g * group, (g + 1) * group));
  return Variable(out);
}

void SelfPrunedMixer::describe(MixerReport& report) const {
  report.means(kKvDensity, prefix_, projections_.kv_heads());
  report.mean(kCacheFraction, prefix_);
}

MixerFlops SelfPrunedMixer::flops(const SequenceLayout& layout) const {
  return {attention_flops(layout, {}, projections_.heads(), projections_.head_dim())};
}

}  // namespace lh
