#include "optim/param_groups.h"

#include "optim_support.h"

namespace {

using namespace lh;
using namespace lh::test;

/// The definition, by recursion.
bool matches(std::string_view p, std::string_view n) {
  if (p.empty()) return n.empty();
  if (p[0] == '*') return matches(p.substr(1), n) || (!n.empty() && matches(p, n.substr(1)));
  return !n.empty() && (p[0] == '?' || p[0] == n[0]) && matches(p.substr(1), n.substr(1));
}

TEST_CASE("globs match as their definition says") {
  Philox random(1);
  const auto word = [&](const char* letters, uint32_t count) {
    std::string text;
    for (uint32_t n = random.below(9); n > 0; --n) text += letters[random.below(count)];
    return text;
  };
  int hits = 0;
  for (int i = 0; i < 20'000; ++i) {
    const std::string pattern = word("ab*?", 4), name = word("ab", 2);
    CHECK_MESSAGE(glob_match(pattern, name) == matches(pattern, name), pattern, " ", name);
    hits += matches(pattern, name) ? 1 : 0;
  }
  CHECK(hits > 1000);
}

struct Fixture {
  ParameterStore store{DType::kF32, 1};
  OptimConfig config;
  Fixture() {
    store.create("model.layers.0.mlp.weight", {2, 2}, ParameterKind::kMatrix, Init::constant(0));
    store.create("model.layers.0.mlp.bias", {2}, ParameterKind::kBias, Init::constant(0));
    store.create("model.norm.weight", {2}, ParameterKind::kNorm, Init::constant(0));
    config.weight_decay = 0.1;
  }
};

TEST_CASE("later groups win key by key") {
  Fixture f;
  f.config.groups = {{"*", 0.5, 0.3, std::nullopt}, {"*.norm.*", std::nullopt, 0.0, true}};
  const auto rules = resolve_param_groups(f.config, f.store);
  REQUIRE(rules.size() == 3);
  CHECK(rules[0].lr_multiplier == 0.5);
  CHECK(rules[0].weight_decay == 0.3);
  CHECK(rules[1].weight_decay == 0.3);  // a group may let a bias decay
  CHECK(!rules[0].frozen);
  CHECK(rules[2].lr_multiplier == 0.5);
  CHECK(rules[2].weight_decay == 0);
  CHECK(rules[2].frozen);
}

TEST_CASE("a pattern that matches nothing is an error that shows what names look like") {
  Fixture f;
  f.config.groups = {{"model.layer.*", 0.5, std::nullopt, std::nullopt}};
  CHECK_THROWS_WITH_AS(resolve_param_groups(f.config, f.store),
                       doctest::Contains("'model.layer.*' matches no parameter"), ConfigError);
}

TEST_CASE("frozen parameters stay and multipliers act on the learning rate") {
  Fixture f;
  f.config.groups = {{"*bias", std::nullopt, std::nullopt, true},
                     {"*norm*", 0.5, std::nullopt, std::nullopt}};
  f.config.learning_rate = 0.01;
  f.config.weight_decay = 0;
  f.config.groups[0].weight_decay = 0.5;
  const auto step_from_one = [&] {
    const auto optimizer = make_optimizer(f.config, f.store);
    for (const auto& parameter : f.store.all()) {
      cpu::fill(parameter->master, 1);
      Tensor gradient = parameter->variable.grad_or_zeros();  // also of what gets none
      cpu::fill(gradient, 1);
    }
    optimizer->step(1, 1);
    std::vector<double> moved;
    for (const auto& parameter : f.store.all()) moved.push_back(to_doubles(parameter->master)[0] - 1);
    return moved;
  };
  // The first AdamW update has the size of the learning rate, but for its eps and the rounding of 1 - 0.01 in f32.
  std::vector<double> moved = step_from_one();
  CHECK(moved[0] == doctest::Approx(-0.01));
  CHECK(moved[1] == 0);
  CHECK(moved[2] == doctest::Approx(-0.005));
  CHECK(!f.store.all()[1]->variable.requires_grad());
  f.config.groups[0].freeze = false;  // another optimizer, other rules
  moved = step_from_one();
  CHECK(moved[1] == doctest::Approx(-0.01 - 0.01 * 0.5));
  CHECK(f.store.all()[1]->variable.requires_grad());
}

TEST_CASE("a factor on weight decay acts on AdamW and on Muon alike") {
  for (const char* kind : {"adamw", "muon"}) {
    std::vector<double> moved[2];
    for (const double factor : {0.0, 0.25}) {
      ParameterStore store(DType::kF64, 1);
      Parameter& matrix = store.create("w", {4, 4}, ParameterKind::kMatrix, Init::normal(1));
      const std::vector<double> before = to_doubles(matrix.master);
      OptimConfig config;
      config.kind = kind;
      config.learning_rate = 0.01;
      config.weight_decay = 0.5;
      const auto optimizer = make_optimizer(config, store);
      set_gradient(matrix, random_tensor({4, 4}, DType::kF64, 3));
      optimizer->set_weight_decay_factor(factor);
      optimizer->step(1, 1);
      std::vector<double>& change = moved[factor > 0];
      change = to_doubles(matrix.master);
      for (size_t i = 0; i < change.size(); ++i) change[i] -= before[i];
      if (factor == 0) continue;
      // What decay adds to the update without it: -lr * decay * factor * weight.
      for (size_t i = 0; i < change.size(); ++i)
        CHECK(change[i] - moved[0][i] == doctest::Approx(-0.01 * 0.5 * 0.25 * before[i]));
    }
  }
}

}  // namespace
