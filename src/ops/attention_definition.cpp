#include "ops/attention_definition.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>

#include "ops/elementwise.h"
#include "ops/matmul.h"
#include "ops/reshape.h"
#include "ops/slice.h"
#include "ops/softmax.h"
#include "ops/transfer.h"

namespace lh {
namespace {

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
  return x.defined() ? cast(transfer(x, kCpuDevice), DType::kF64) : x;
}

/// [n, d] of head `head` of rows [begin, begin + count) of x [rows, heads, d].
Variable rows_of_head(const Variable& x, int64_t begin, int64_t count, int64_t head) {
  const Variable rows = slice(slice(x, 1, head, head + 1), 0, begin, begin + count);
  return reshape(rows, {count, x.size(2)});
}

Variable constant(const Shape& shape, const std::function<double(int64_t, int64_t)>& value) {
  const Tensor t = Tensor::empty(shape, DType::kF64);
  for (int64_t i = 0; i < shape[0]; ++i)
    for (int64_t j = 0; j < shape[1]; ++j) t.data<double>()[i * shape[1] + j] = value(i, j);
  return Variable(t);
}

Variable ones(int64_t rows, int64_t columns) {
  return constant({rows, columns}, [](int64_t, int64_t) { return 1.0; });
}

/// x with 0 in place of -inf: what is closed has no slope.
Variable open_part(const Variable& x) {
  Tensor finite = Tensor::empty_like(x.value()), open = Tensor::empty_like(x.value());
  for (int64_t i = 0; i < x.value().numel(); ++i) {
    const double value = x.value().data<double>()[i];
    open.data<double>()[i] = std::isinf(value) ? 0 : 1;
    finite.data<double>()[i] = std::isinf(value) ? 0 : value;
  }
  return record("open_part", {x}, finite, [open](Gradients& gradients) {
    gradients.add(0, multiply(Variable(gradients.output()), Variable(open)).value());
  });
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
  Variable pairs(const std::function<double(int64_t distance, int64_t key)>& value) const {
    return constant({segment.query_length, segment.key_length}, [&](int64_t i, int64_t j) {
      return value(segment.query_offset + i - j, j);
    });
  }
  bool sees(int64_t distance, int64_t key) const {
    return distance >= 0 && (mask.window == 0 || distance < mask.window || key < mask.sinks);
  }
};

/// softmax_j(scale q_i k_j + bias_j) [queries, keys] over the keys that the mask shows; bias [keys, 1] or undefined.
Variable weights(const Head& head, const Variable& q, const Variable& k, double scale_of_scores,
                 const Variable& bias) {
  Variable scores = scale(matmul(q, k, true), scale_of_scores);
  if (bias.defined()) {
    const auto far = [&](int64_t distance) { return distance >= head.mask.bias_window; };
    const Variable biases = matmul(ones(q.size(0), 1), open_part(bias), true);
    scores = add(scores, multiply(biases, head.pairs([&](int64_t distance, int64_t) {
      return far(distance) ? 1.0 : 0.0;
    })));
    const double* closed = bias.value().data<double>();
    scores = add(scores, head.pairs([&](int64_t distance, int64_t key) {
      return far(distance) && std::isinf(closed[key]) ? closed[key] : 0.0;
    }));
  }
  return softmax(add(scores, head.pairs([&](int64_t distance, int64_t key) {
    return head.sees(distance, key) ? 0.0 : -std::numeric_limits<double>::infinity();
  })));
}

/// [rows, heads, d] of what `function` makes of each head of each segment, [queries, d]; zeros in rows of no segment.
Variable for_heads(const AttentionPlan& plan, int64_t rows, int64_t heads, int64_t kv_heads, int64_t d,
                   const std::function<Variable(const Head&)>& function) {
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
  const Variable hb = bias.defined() ? reshape(on_host(bias), {k.size(0), k.size(1), 1}) : bias;
  const Variable out =
      for_heads(plan, q.size(0), q.size(1), k.size(1), v.size(2), [&](const Head& head) {
        const Variable p = weights(head, head.queries(hq), head.keys(hk), plan.scale,
                                   hb.defined() ? head.keys(hb) : hb);
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
