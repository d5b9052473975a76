// Every differentiable op against central differences in fp64.
#include <doctest/doctest.h>

#include "ops/attention.h"
#include "ops/elementwise.h"
#include "ops/embedding.h"
#include "ops/linear.h"
#include "ops/linear_cross_entropy.h"
#include "ops/lla_attention.h"
#include "ops/parallax_attention.h"
#include "ops/reshape.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"
#include "ops/utility_gate.h"
#include "support/gradcheck.h"

namespace {

using namespace lh;
using namespace lh::test;

Tensor random(const Shape& shape, uint64_t seed) {
  return random_tensor(shape, DType::kF64, seed);
}

TEST_CASE("linear with bias has the gradient of central differences") {
  check_gradients([](const auto& in) { return linear(in[0], in[1], in[2]); },
                  {random({5, 4}, 1), random({3, 4}, 2), random({3}, 3)});
}

TEST_CASE("rms_norm has the gradient of central differences") {
  check_gradients([](const auto& in) { return rms_norm(in[0], in[1], 1e-5); },
                  {random({4, 2, 6}, 1), random({6}, 2)});
}

TEST_CASE("a cheap result that a later op keeps is recomputed and gives the same gradient") {
  check_gradients(
      [](const auto& in) {
        return linear(swiglu(rms_norm(in[0], in[1], 1e-5), in[0]), in[2]);
      },
      {random({3, 6}, 1), random({6}, 2), random({4, 6}, 3)});
}

TEST_CASE("elementwise ops have the gradient of central differences") {
  const std::vector<Tensor> two = {random({3, 5}, 1), random({3, 5}, 2)};
  check_gradients([](const auto& in) { return add(in[0], in[1], 0.5, -2); }, two);
  check_gradients([](const auto& in) { return multiply(in[0], in[1]); }, two);
  check_gradients([](const auto& in) { return swiglu(in[0], in[1]); }, two);
  check_gradients([](const auto& in) { return sigmoid_gate(in[0], in[1]); }, two);
  check_gradients([](const auto& in) { return scale(reshape(in[0], {5, 3}), 3); },
                  {random({3, 5}, 3)});
}

TEST_CASE("a value used twice receives the sum of both gradients") {
  check_gradients([](const auto& in) { return add(multiply(in[0], in[0]), in[0]); },
                  {random({7}, 1)});
}

TEST_CASE("rope has the gradient of central differences") {
  const Tensor table = random({8, 6}, 5);
  const Tensor positions = Tensor::from(std::vector<int32_t>{0, 3, 7}, {3});
  check_gradients([&](const auto& in) { return rope(in[0], table, positions); },
                  {random({3, 2, 6}, 1)});
}

TEST_CASE("embedding with repeated ids has the gradient of central differences") {
  const Tensor ids = Tensor::from(std::vector<int32_t>{2, 0, 2, 2, 4}, {5});
  check_gradients([&](const auto& in) { return embedding(in[0], ids, 1.5); }, {random({5, 3}, 1)});
}

TEST_CASE("attention over packed segments has the gradient of central differences") {
  for (const int64_t kv_heads : {4, 2, 1}) {
    auto plan = std::make_shared<AttentionPlan>();
    plan->segments = {{0, 3, 0, 3, 0}, {3, 5, 3, 5, 0}};
    plan->mask = {kv_heads == 2 ? 3 : 0, kv_heads == 2 ? 1 : 0};
    plan->scale = 0.4;
    check_gradients([&](const auto& in) { return attention(in[0], in[1], in[2], plan); },
                    {random({8, 4, 6}, 1), random({8, kv_heads, 6}, 2), random({8, kv_heads, 5}, 3)});
  }
}

TEST_CASE("attention with a bias per key has the gradient of central differences") {
  for (const int64_t kv_heads : {4, 2, 1})
    for (const int64_t bias_window : {0, 1, 3}) {
      auto plan = std::make_shared<AttentionPlan>();
      plan->segments = {{0, 3, 0, 3, 0}, {3, 5, 3, 5, 0}};
      plan->mask.bias_window = bias_window;
      plan->scale = 0.4;
      check_gradients([&](const auto& in) { return attention(in[0], in[1], in[2], plan, in[3]); },
                      {random({8, 4, 6}, 1), random({8, kv_heads, 6}, 2),
                       random({8, kv_heads, 5}, 3), random({8, kv_heads}, 4)});
    }
}

TEST_CASE("soft and annealed utility gates have the gradient of central differences") {
  // No logit is so near the threshold that a step crosses it.
  for (const UtilityGate& gate :
       {UtilityGate{GateMode::kSoft, 0, 0.5}, UtilityGate{GateMode::kAnneal, 0.4, 0.3}})
    check_gradients([&](const auto& in) { return utility_gate(in[0], gate); }, {random({9, 4}, 1)});
}

TEST_CASE("clipped and weighted utility gates have the gradient of central differences") {
  for (UtilityGate gate : {UtilityGate{GateMode::kSoft, 0, 0.5}, UtilityGate{GateMode::kAnneal, 0.4, 0.3},
                           UtilityGate{GateMode::kAnneal, 1, 0.3}})
    for (const bool weighted : {false, true})
      for (const double clip : {0.0, 0.35}) {
        gate.weighted = weighted;
        gate.clip = clip;
        check_gradients([&](const auto& in) { return utility_gate(in[0], gate); },
                        {random({9, 4}, 1)});
      }
}

/// Logits from -9 to 9, row numbers with some left out, and a gate of them.
struct NumberedGates {
  Tensor logits = Tensor::empty({40, 3}, DType::kF64), rows = Tensor::empty({40}, DType::kI64);
  UtilityGate gate;

  explicit NumberedGates(GateMode mode) {
    for (int64_t i = 0; i < 120; ++i) logits.data<double>()[i] = static_cast<double>(i % 37) / 2 - 9;
    for (int64_t r = 0; r < 40; ++r) rows.data<int64_t>()[r] = r % 5 == 3 ? -1 : 1000 + 7 * r;
    gate.mode = mode;
    gate.rows = rows;
    gate.draw_key = 99;
  }
  double utility(int64_t i) const { return 1 / (1 + std::exp(-logits.data<double>()[i])); }
  std::vector<double> bias() const { return to_doubles(utility_gate(Variable(logits), gate).value()); }
  std::vector<double> gradient(const Tensor& dbias) const {
    const Variable x = Variable::leaf(logits);
    backward(utility_gate(x, gate), dbias);
    return to_doubles(x.grad());
  }
};

TEST_CASE("the pull of a gate is the gradient of a term that is linear in its utilities") {
  NumberedGates g(GateMode::kSoft);
  const Tensor dbias = random({40, 3}, 5);
  for (const double clip : {0.0, 0.01}) {
    g.gate.clip = clip;
    g.gate.pull = 0;
    const auto without = g.gradient(dbias);
    g.gate.pull = 0.3;
    const auto with = g.gradient(dbias);
    const auto total = [&] {
      Tensor sum = Tensor::zeros({1}, DType::kF64);
      add_utilities(Variable(g.logits), g.gate, sum);
      return sum.item();
    };
    for (size_t i = 0; i < with.size(); ++i) {
      double& x = g.logits.data<double>()[i];
      const double kept = x, step = 1e-4;
      x = kept + step;
      const double up = total();
      x = kept - step;
      const double down = total();
      x = kept;
      CHECK(with[i] - without[i] == doctest::Approx(0.3 * (up - down) / (2 * step)).epsilon(1e-6).scale(1e-3));
    }
  }
}

TEST_CASE("sampled gates: the chance is the utility, the gradient straight-through, rows name the draws") {
  NumberedGates g(GateMode::kSample);
  const auto bias = g.bias();
  const Tensor dbias = random({40, 3}, 5);
  const auto dx = g.gradient(dbias);
  for (size_t i = 0; i < bias.size(); ++i) {
    CHECK((bias[i] == 0 || bias[i] == -std::numeric_limits<double>::infinity()));
    const double u = g.utility(static_cast<int64_t>(i));  // d log u / dx = 1 - u
    CHECK(dx[i] ==
          doctest::Approx(dbias.data<double>()[i] * (1 - u) * u / (u + 1e-8)).epsilon(1e-12));
  }
  // Any rows alone, in any order, get the gates they have among the others.
  NumberedGates part(GateMode::kSample);
  for (int64_t r = 0; r < 40; ++r) {
    part.rows.data<int64_t>()[39 - r] = g.rows.data<int64_t>()[r];
    for (int64_t h = 0; h < 3; ++h)
      part.logits.data<double>()[(39 - r) * 3 + h] = g.logits.data<double>()[r * 3 + h];
  }
  const auto turned = part.bias();
  for (size_t r = 0; r < 40; ++r)
    for (size_t h = 0; h < 3; ++h) CHECK(turned[(39 - r) * 3 + h] == bias[r * 3 + h]);
  // Frequencies, over keys, rows and heads.
  const int64_t draws = 20000;
  for (const double u : {0.03, 0.5, 0.9}) {
    Tensor logits = Tensor::empty({draws, 2}, DType::kF64), rows = Tensor::empty({draws}, DType::kI64);
    for (double& x : logits.span<double>()) x = std::log(u / (1 - u));
    for (int64_t r = 0; r < draws; ++r) rows.data<int64_t>()[r] = r + (int64_t{1} << 33);
    for (const uint64_t key : {uint64_t{1}, uint64_t{2}}) {
      UtilityGate gate;
      gate.mode = GateMode::kSample;
      gate.rows = rows;
      gate.draw_key = key;
      const auto open = to_doubles(utility_gate(Variable(logits), gate).value());
      double both = 0, first = 0, second = 0;
      for (size_t r = 0; r < static_cast<size_t>(draws); ++r) {
        first += open[2 * r] == 0;
        second += open[2 * r + 1] == 0;
        both += open[2 * r] == 0 && open[2 * r + 1] == 0;
      }
      const double bound = 5 * std::sqrt(u * (1 - u) / draws);
      CHECK(std::abs(first / draws - u) < bound);
      CHECK(std::abs(second / draws - u) < bound);
      CHECK(std::abs(both / draws - u * u) < bound);  // heads are independent
    }
  }
  g.gate.rows = Tensor();
  CHECK_THROWS_WITH_AS(g.bias(), doctest::Contains("need the numbers of their rows"), ShapeError);
}

TEST_CASE("weighted hard gates are the logarithm of kept utilities, with its gradient") {
  NumberedGates g(GateMode::kHard);
  g.gate.weighted = true;
  g.gate.threshold = 0.3;
  const auto bias = g.bias();
  const Tensor dbias = random({40, 3}, 5);
  const auto dx = g.gradient(dbias);
  for (size_t i = 0; i < bias.size(); ++i) {
    const double u = g.utility(static_cast<int64_t>(i));
    if (u < 0.3) {
      CHECK(bias[i] == -std::numeric_limits<double>::infinity());
      CHECK(dx[i] == 0);
    } else {
      CHECK(bias[i] == doctest::Approx(std::log(u + 1e-8)).epsilon(1e-13));
      CHECK(dx[i] == doctest::Approx(dbias.data<double>()[i] * u * (1 - u) / (u + 1e-8)).epsilon(1e-12));
    }
  }
}

TEST_CASE("utility gates equal their formula, hard ones are constants") {
  const Tensor logits = Tensor::from(std::vector<double>{-800, -30, -1, 0, 2, 50}, {2, 3});
  const auto bias = [&](GateMode mode, double alpha, double threshold) {
    return to_doubles(utility_gate(Variable::leaf(logits), {mode, alpha, threshold}).value());
  };
  const double infinity = std::numeric_limits<double>::infinity();
  CHECK(bias(GateMode::kHard, 1, 0.5) ==
        std::vector<double>{-infinity, -infinity, -infinity, 0, 0, 0});  // u = threshold is kept
  const auto soft = bias(GateMode::kSoft, 0, 0.5), anneal = bias(GateMode::kAnneal, 0.25, 0.5);
  for (size_t i = 0; i < 6; ++i) {
    const double x = logits.data<double>()[i], u = 1 / (1 + std::exp(-x));
    CHECK(soft[i] == doctest::Approx(std::log(u + 1e-8)).epsilon(1e-14));
    const double kept = x >= 0 ? 0.25 : 0;
    CHECK(anneal[i] == doctest::Approx(std::log(0.75 * u + kept + 1e-8)).epsilon(1e-14));
  }
  CHECK(!utility_gate(Variable::leaf(logits), {}).requires_grad());
  CHECK_THROWS_WITH_AS(utility_gate(Variable(logits), {GateMode::kHard, 1, 1}),
                       doctest::Contains("0 < threshold < 1"), ConfigError);
}

TEST_CASE("keys inside every query's bias window get exactly no gradient") {
  auto plan = std::make_shared<AttentionPlan>();
  plan->segments = {{0, 70, 0, 70, 0}, {70, 5, 70, 5, 0}};
  plan->mask.bias_window = 6;
  const Variable bias = Variable::leaf(random({75, 2}, 4));
  backward(attention(Variable(random({75, 4, 6}, 1)), Variable(random({75, 2, 6}, 2)),
                     Variable(random({75, 2, 5}, 3)), plan, bias),
           random({75, 4, 5}, 5));
  const auto gradient = to_doubles(bias.grad());
  for (size_t i = 0; i < gradient.size(); ++i) CHECK((gradient[i] == 0) == (i >= 64 * 2));
}

TEST_CASE("parallax and local linear attention have the gradient of central differences") {
  for (const int64_t kv_heads : {4, 2, 1}) {
    auto plan = std::make_shared<AttentionPlan>();
    plan->segments = {{0, 3, 0, 3, 0}, {3, 5, 3, 5, 0}};
    plan->mask = {kv_heads == 2 ? 3 : 0, kv_heads == 2 ? 1 : 0};
    plan->scale = 0.4;
    check_gradients(
        [&](const auto& in) { return parallax_attention(in[0], in[1], in[2], in[3], plan).out; },
        {random({8, 4, 6}, 1), random({8, 4, 6}, 4), random({8, kv_heads, 6}, 2),
         random({8, kv_heads, 5}, 3)});
    for (const double ridge : {0.3, 10.0})
      check_gradients(
          [&](const auto& in) { return lla_attention(in[0], in[1], in[2], plan, {ridge, false}); },
          {random({8, 4, 6}, 1), random({8, kv_heads, 6}, 2), random({8, kv_heads, 5}, 3)});
  }
}

TEST_CASE("linear_cross_entropy has the gradient of central differences") {
  const Tensor targets = Tensor::from(std::vector<int32_t>{1, -1, 6, 0}, {4});
  check_gradients(
      [&](const auto& in) { return linear_cross_entropy(in[0], in[1], targets, 0.7).loss_sum; },
      {random({4, 3}, 1), random({7, 3}, 2)});
}

TEST_CASE("shapes that do not fit are refused with the op and both facts") {
  const Variable x(random({2, 3}, 1)), w(random({4, 5}, 2));
  CHECK_THROWS_WITH_AS(linear(x, w), doctest::Contains("[linear] expected x [n, in]"), ShapeError);
  CHECK_THROWS_AS(add(x, w), ShapeError);
  CHECK_THROWS_AS(rms_norm(x, w, 1e-5), ShapeError);
}

}  // namespace
