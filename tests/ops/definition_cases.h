// The tiled forms of attention against their definitions, forward and every gradient.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "autograd/engine.h"
#include "base/math.h"
#include "ops/attention.h"
#include "ops/attention_definition.h"
#include "ops/parallax_attention.h"
#include "support/compare.h"

namespace lh::test {

struct DefinitionCase {
  std::vector<AttentionSegment> segments;
  AttentionMask mask = {};
  int64_t query_rows = 0, key_rows = 0, heads = 8, kv_heads = 2, d = 16, value_dim = 16;
  bool biased = false;
};

/// Packed documents of ragged lengths, tiles and windows that do not fit each other, queries that come later than
/// keys, segments that share keys, rows of no segment, and biases that close keys.
inline std::vector<DefinitionCase> definition_cases() {
  std::vector<DefinitionCase> cases;
  const std::vector<AttentionSegment> documents = {{0, 1, 0, 1, 0}, {1, 70, 1, 70, 0}, {71, 29, 71, 29, 0}};
  for (const int64_t kv_heads : {8, 4, 1})
    cases.push_back({.segments = documents, .query_rows = 104, .key_rows = 104, .kv_heads = kv_heads});
  cases.push_back({.segments = {{0, 150, 0, 150, 0}}, .mask = {70, 3}, .query_rows = 150, .key_rows = 150,
                   .heads = 4, .value_dim = 32});
  // The second half and the middle of one document, and a chunk that follows another.
  cases.push_back({.segments = {{30, 20, 0, 40, 20}, {0, 30, 0, 70, 40}, {50, 9, 70, 25, 16}}, .mask = {33, 0},
                   .query_rows = 61, .key_rows = 95});
  const auto softmax_cases = cases.size();
  for (const int64_t bias_window : {0, 6, 70})
    for (size_t i = 1; i < softmax_cases; i += 2) {
      cases.push_back(cases[i]);
      cases.back().mask.bias_window = bias_window;
      cases.back().biased = true;
    }
  // Keys so far back that only open ones are read, by late queries and by segments that share them.
  cases.push_back({.segments = {{100, 40, 0, 300, 260}, {0, 90, 0, 250, 160}, {140, 150, 310, 150, 0}},
                   .mask = {.bias_window = 9, .bias_closes = true}, .query_rows = 290, .key_rows = 470,
                   .heads = 4, .biased = true});
  return cases;
}

inline double worst(const Tensor& got, const Tensor& want) {
  const auto a = to_doubles(got.to(kCpuDevice)), b = to_doubles(want.to(kCpuDevice));
  REQUIRE(a.size() == b.size());
  double error = 0, largest = 1e-3;
  for (const double value : b) largest = std::max(largest, std::abs(value));
  for (size_t i = 0; i < a.size(); ++i)
    error = larger_or_nan(error, std::abs(a[i] - b[i]));
  return error / largest;
}

/// `mix` of the tiled form and of the definition; errors are relative to the largest value of a tensor.
template <typename Fused, typename Definition>
void check_definition(const std::vector<Tensor>& values, double tolerance, Fused&& fused,
                      Definition&& definition) {
  std::vector<Variable> a, b;
  for (const Tensor& value : values) {
    a.push_back(Variable::leaf(value));
    b.push_back(Variable::leaf(value));
  }
  const Variable got = fused(a), want = definition(b);
  CHECK(worst(got.value(), want.value()) < tolerance);
  Tensor seed = random_tensor(got.shape(), DType::kF64, 99);
  Tensor rounded = Tensor::empty(got.shape(), got.dtype());
  assign(rounded, to_doubles(seed));
  seed = rounded.to(got.device());
  backward(got, seed);
  backward(want, seed);
  for (size_t i = 0; i < values.size(); ++i) {
    CAPTURE(i);
    CHECK(worst(a[i].grad(), b[i].grad()) < tolerance);
  }
}

inline void check_definitions(DType dtype, Device device, double tolerance) {
  for (const DefinitionCase& c : definition_cases()) {
    CAPTURE(c.segments.size());
    CAPTURE(c.kv_heads);
    CAPTURE(c.mask.window);
    CAPTURE(c.mask.bias_window);
    CAPTURE(c.biased);
    const auto make = [&](const Shape& shape, DType of, uint64_t seed) {
      return random_tensor(shape, of, seed).to(device);
    };
    auto plan = std::make_shared<AttentionPlan>();
    plan->segments = c.segments;
    plan->mask = c.mask;
    plan->scale = 0.5;
    std::vector<Tensor> values = {make({c.query_rows, c.heads, c.d}, dtype, 1),
                                  make({c.key_rows, c.kv_heads, c.d}, dtype, 2),
                                  make({c.key_rows, c.kv_heads, c.value_dim}, dtype, 3)};
    if (c.biased) {
      const DType wide = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
      Tensor bias = random_tensor({c.key_rows, c.kv_heads}, wide, 4);
      auto some = to_doubles(bias);
      for (size_t i = 0; i < some.size(); i += 3) some[i] = -std::numeric_limits<double>::infinity();
      assign(bias, some);
      values.push_back(bias.to(device));
    }
    check_definition(
        values, tolerance,
        [&](const auto& in) {
          return attention(in[0], in[1], in[2], plan, c.biased ? in[3] : Variable());
        },
        [&](const auto& in) {
          return attention_definition(in[0], in[1], in[2], *plan, c.biased ? in[3] : Variable());
        });
    if (c.biased) continue;
    values.push_back(make({c.query_rows, c.heads, c.d}, dtype, 5));
    check_definition(
        values, tolerance,
        [&](const auto& in) { return parallax_attention(in[0], in[3], in[1], in[2], plan).out; },
        [&](const auto& in) { return parallax_definition(in[0], in[3], in[1], in[2], *plan).out; });
  }
}

}  // namespace lh::test
