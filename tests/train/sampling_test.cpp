#include "train/sampling.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "base/error.h"

namespace {

using namespace lh;

std::map<int32_t, int> draw(const std::vector<float>& logits, const SamplingOptions& options,
                            int count = 40'000) {
  Philox random(11);
  std::map<int32_t, int> counts;
  for (int i = 0; i < count; ++i) ++counts[sample_token(logits, options, random)];
  return counts;
}

/// Chi-square of counts against weights; about the number of categories when they agree.
double chi_square(const std::map<int32_t, int>& counts, const std::map<int32_t, double>& weights) {
  double total = 0, draws = 0, sum = 0;
  for (const auto& [token, weight] : weights) total += weight;
  for (const auto& [token, count] : counts) draws += count;
  for (const auto& [token, weight] : weights) {
    const double expected = draws * weight / total;
    const auto found = counts.find(token);
    const double got = found == counts.end() ? 0 : found->second;
    sum += (got - expected) * (got - expected) / expected;
  }
  return sum;
}

const std::vector<float> kLogits = {0.0f, 2.0f, -1.0f, 1.0f, 1.5f};

TEST_CASE("temperature 0 takes the most likely token and ties go to the first") {
  CHECK(draw(kLogits, {.temperature = 0}, 10) == std::map<int32_t, int>{{1, 10}});
  CHECK(draw({1, 3, 3, 2}, {.temperature = 0}, 10) == std::map<int32_t, int>{{1, 10}});
}

TEST_CASE("draws follow the tempered softmax") {
  for (const double temperature : {0.5, 1.0, 2.0}) {
    std::map<int32_t, double> weights;
    for (size_t i = 0; i < kLogits.size(); ++i)
      weights[static_cast<int32_t>(i)] = std::exp(kLogits[i] / temperature);
    // 4 degrees of freedom: above 23.5 once in ten thousand.
    CHECK(chi_square(draw(kLogits, {.temperature = temperature}), weights) < 23.5);
  }
}

TEST_CASE("top k keeps exactly the k most likely") {
  const auto counts = draw(kLogits, {.top_k = 3});
  CHECK(counts.size() == 3);
  CHECK(chi_square(counts, {{1, std::exp(2.0)}, {4, std::exp(1.5)}, {3, std::exp(1.0)}}) < 18.5);
  CHECK(draw(kLogits, {.top_k = 99}).size() == 5);
}

TEST_CASE("top p keeps the fewest tokens that reach p") {
  // Probabilities by rank: 0.455, 0.276, 0.167, 0.062, 0.023 (of 1, 4, 3, 0, 2).
  CHECK(draw(kLogits, {.top_p = 0.4}).size() == 1);
  CHECK(draw(kLogits, {.top_p = 0.5}).size() == 2);
  CHECK(draw(kLogits, {.top_p = 0.8}).size() == 3);
  CHECK(draw(kLogits, {.top_p = 0.95}).size() == 4);
  CHECK(draw(kLogits, {.top_p = 1}).size() == 5);
  const auto counts = draw(kLogits, {.top_p = 0.8});
  CHECK(chi_square(counts, {{1, std::exp(2.0)}, {4, std::exp(1.5)}, {3, std::exp(1.0)}}) < 18.5);
}

TEST_CASE("top p acts within top k and both keep ties in order") {
  CHECK(draw({1, 1, 1, 1}, {.top_k = 2}, 1000).size() == 2);
  CHECK(draw({1, 1, 1, 1}, {.top_k = 2}, 1000).begin()->first == 0);
  CHECK(draw(kLogits, {.top_k = 2, .top_p = 0.99}).size() == 2);
}

TEST_CASE("an impossible token is never drawn and NaN is refused by name") {
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(draw({0, -infinity, 0}, {}).size() == 2);
  Philox random(1);
  const std::vector<float> bad = {0, std::numeric_limits<float>::quiet_NaN()};
  CHECK_THROWS_WITH_AS(sample_token(bad, {}, random), doctest::Contains("logit 1 is NaN"),
                       NonFiniteError);
}

TEST_CASE("options out of range are refused by name") {
  CHECK_THROWS_WITH_AS(check_sampling({.temperature = -1}), doctest::Contains("temperature"),
                       ConfigError);
  CHECK_THROWS_WITH_AS(check_sampling({.temperature = std::numeric_limits<double>::quiet_NaN()}),
                       doctest::Contains("temperature"), ConfigError);
  CHECK_THROWS_WITH_AS(check_sampling({.top_k = -1}), doctest::Contains("top-k"), ConfigError);
  CHECK_THROWS_WITH_AS(check_sampling({.top_p = 0}), doctest::Contains("top-p"), ConfigError);
  CHECK_THROWS_WITH_AS(check_sampling({.top_p = 1.1}), doctest::Contains("top-p"), ConfigError);
}

}  // namespace
