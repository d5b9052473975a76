#include "ops/attention_definition.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>

#include "backend/elementwise.h"
#include "backend/operands.h"
#include "ops/elementwise.h"
#include "ops/masked_softmax.h"
#include "ops/matmul.h"
#include "ops/reshape.h"
#include "ops/slice.h"
#include "ops/transfer.h"

namespace lh {
namespace {

constexpr double kClosed = -std::numeric_limits<double>::infinity();

bool& choice() {
  static bool chosen = [] {
    const char* value = std::getenv("LH_NO_FUSED");
    const std::string_view text = value == nullptr ? "" : value;
    if (!text.empty() && text != "0" && text != "1")
      fail<ConfigError>("LH_NO_FUSED: expected 0 or 1, got '{}'", text);
    return text == "1";
  }();
  return chosen;
}

Variable on_host(const Variable& x) {
  return cast(transfer(x, kCpuDevice), DType::kF64);
}

/// [n, d] of head `head` of rows [begin, begin + count) of x [rows, heads, d].
Variable rows_of_head(const Variable& x, int64_t begin, int64_t count, int64_t head) {
  const Variable rows = slice(slice(x, 0, begin, begin + count), 1, head, head + 1);
  return reshape(rows, {count, x.size(2)});
}

Variable ones(int64_t rows, int64_t columns) {
  const Tensor t = Tensor::empty({rows, columns}, DType::kF64);
  std::fill_n(t.data<double>(), t.numel(), 1.0);
  return Variable(t);
}

/// Biases of keys [rows, heads], f64 on the host: 0 in place of -inf, which has no slope and is part of the mask. So no
/// recorded tensor holds -inf, and a search for what is not finite finds what is wrong (train/replay.h).
struct Biases {
  Variable open;
  Tensor closed;  // -inf where a key is closed, else 0
};

Biases biases_of(const Variable& bias, const Variable& k) {
  if (!bias.defined()) return {};
  check_shape(bias.value(), {k.size(0), k.size(1)}, "attention", "bias");
  const Tensor host = bias.value().to(kCpuDevice);
  Tensor all = Tensor::empty(host.shape(), DType::kF64);
  cpu::copy(host, all);
  Tensor open = Tensor::empty_like(all), closed = Tensor::empty_like(all);
  for (int64_t i = 0; i < all.numel(); ++i) {
    const double value = all.data<double>()[i];
    open.data<double>()[i] = value == kClosed ? 0 : value;
    closed.data<double>()[i] = value == kClosed ? kClosed : 0;
  }
  return {record("open biases", {bias}, open,
                 [closed, dtype = bias.dtype(), device = bias.device()](Gradients& gradients) {
                   Tensor d = Tensor::empty_like(closed), home = Tensor::empty(d.shape(), dtype);
                   for (int64_t i = 0; i < d.numel(); ++i)
                     d.data<double>()[i] =
                         closed.data<double>()[i] == 0 ? gradients.output().data<double>()[i] : 0;
                   cpu::copy(d, home);
                   gradients.add(0, home.to(device));
                 }),
          closed};
}

/// One head of one segment.
struct Head {
  const AttentionSegment& segment;
  const AttentionMask& mask;
  int64_t query_head, kv_head;

  Variable queries(const Variable& x) const {
    return rows_of_head(x, segment.query_begin, segment.query_length, query_head);
  }
  Variable keys(const Variable& x) const {
    return rows_of_head(x, segment.key_begin, segment.key_length, kv_head);
  }
  /// Of every query and key; distance: position of the query minus that of the key.
  Tensor pairs(const std::function<double(int64_t distance, int64_t key)>& value) const {
    const Tensor t = Tensor::empty({segment.query_length, segment.key_length}, DType::kF64);
    double* to = t.data<double>();
    for (int64_t i = 0; i < segment.query_length; ++i)
      for (int64_t j = 0; j < segment.key_length; ++j) *to++ = value(segment.query_offset + i - j, j);
    return t;
  }
  bool sees(int64_t distance, int64_t key) const {
    return distance >= 0 && (mask.window == 0 || distance < mask.window || key < mask.sinks);
  }
};

/// softmax_j(scale q_i k_j + bias_j) [queries, keys] over the keys that the mask shows; biases may be undefined.
Variable weights(const Head& head, const Variable& q, const Variable& k, double scale_of_scores,
                 const Biases& biases) {
  Variable scores = scale(matmul(q, k, true), scale_of_scores);
  const bool biased = biases.open.defined();
  const auto far = [&](int64_t distance) { return biased && distance >= head.mask.bias_window; };
  const int64_t kv_heads = biased ? biases.closed.size(1) : 0;
  if (biased) {
    const Variable open = head.keys(reshape(biases.open, {biases.open.size(0), kv_heads, 1}));
    scores = add(scores, multiply(matmul(ones(q.size(0), 1), open, true),
                                  Variable(head.pairs([&](int64_t distance, int64_t) {
                                    return far(distance) ? 1.0 : 0.0;
                                  }))));
  }
  const auto closed = [&](int64_t key) {
    return biases.closed.data<double>()[(head.segment.key_begin + key) * kv_heads + head.kv_head];
  };
  return masked_softmax(scores, head.pairs([&](int64_t distance, int64_t key) {
    if (!head.sees(distance, key)) return kClosed;
    return far(distance) ? closed(key) : 0.0;
  }));
}

/// [rows, heads, d] of what `function` makes of each head of each segment, [queries, d]; zeros in rows of no segment.
Variable for_heads(const AttentionPlan& plan, int64_t rows, int64_t heads, int64_t kv_heads, int64_t d,
                   const std::function<Variable(const Head&)>& function) {
  if (rows == 0) return Variable(Tensor::zeros({0, heads, d}, DType::kF64));
  std::vector<AttentionSegment> segments = plan.segments;
  std::sort(segments.begin(), segments.end(), [](const auto& a, const auto& b) {
    return a.query_begin < b.query_begin;
  });
  std::vector<Variable> parts;
  int64_t filled = 0;
  const auto leave_out = [&](int64_t end) {
    if (end > filled) parts.emplace_back(Tensor::zeros({end - filled, heads, d}, DType::kF64));
    filled = end;
  };
  for (const AttentionSegment& segment : segments) {
    if (segment.query_length == 0) continue;
    leave_out(segment.query_begin);
    std::vector<Variable> of_heads;
    for (int64_t h = 0; h < heads; ++h)
      of_heads.push_back(reshape(function({segment, plan.mask, h, h / (heads / kv_heads)}),
                                 {segment.query_length, 1, d}));
    parts.push_back(concat(of_heads, 1));
    filled += segment.query_length;
  }
  leave_out(rows);
  return concat(parts, 0);
}

}  // namespace

bool definitions_chosen() {
  return choice();
}

void choose_definitions(bool chosen) {
  choice() = chosen;
}

Variable attention_definition(const Variable& q, const Variable& k, const Variable& v,
                              const AttentionPlan& plan, const Variable& bias) {
  const Variable hq = on_host(q), hk = on_host(k), hv = on_host(v);
  const Biases biases = biases_of(bias, k);
  const Variable out =
      for_heads(plan, q.size(0), q.size(1), k.size(1), v.size(2), [&](const Head& head) {
        const Variable p = weights(head, head.queries(hq), head.keys(hk), plan.scale, biases);
        return matmul(p, head.keys(hv));
      });
  return transfer(cast(out, q.dtype()), q.device());
}

ParallaxAttention parallax_definition(const Variable& q, const Variable& r, const Variable& k,
                                      const Variable& v, const AttentionPlan& plan) {
  const Variable hq = on_host(q), hr = on_host(r), hk = on_host(k), hv = on_host(v);
  const int64_t d = v.size(2);
  const auto both = for_heads(plan, q.size(0), q.size(1), k.size(1), 2 * d, [&](const Head& head) {
    const Variable keys = head.keys(hk), values = head.keys(hv);
    const Variable p = weights(head, head.queries(hq), keys, plan.scale, {});
    const Variable u = matmul(head.queries(hr), keys, true);
    const Variable mean = matmul(multiply(p, u), ones(keys.size(0), 1));
    const Variable centred = add(u, matmul(mean, ones(1, keys.size(0))), 1, -1);
    // The covariance of values and keys along r; centring one of the two is enough.
    return concat({matmul(p, values), matmul(multiply(p, centred), values)}, 1);
  });
  const Variable intercept = slice(both, 2, 0, d), correction = slice(both, 2, d, 2 * d);
  const auto home = [&](const Variable& x) { return transfer(cast(x, q.dtype()), q.device()); };
  const Variable out = home(add(intercept, correction, 1, -1));
  return {out, {out.value(), home(intercept).value(), {}, {}}};
}

}  // namespace lh
