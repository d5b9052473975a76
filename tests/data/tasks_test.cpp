// Synthetic tasks. Every answer is found again by a reader that knows the form of an example and
// nothing of how it was made.
#include "data/task.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

#include "base/error.h"
#include "data/draw.h"
#include "data_support.h"

using namespace lh;
using namespace lh::test;

namespace {

constexpr uint64_t kSeed = 11;

std::vector<TaskConfig> small_tasks() {
  return {{.kind = "palindrome", .items = 7, .gap = 4, .vocab = 10},
          {.kind = "mqar", .length = 48, .pairs = 6, .vocab = 20},
          {.kind = "needle", .length = 60, .pairs = 3, .vocab = 12, .value_tokens = 2},
          {.kind = "selective_copy", .length = 40, .items = 6, .vocab = 5},
          {.kind = "regression", .pairs = 9, .dimension = 3, .bins = 64}};
}

std::vector<int32_t> answers_of(const Example& example) {
  std::vector<int32_t> answers;
  for (size_t i = 0; i < example.symbols.size(); ++i)
    if (example.is_answer[i]) answers.push_back(example.symbols[i]);
  return answers;
}

/// True when exactly the last `count` symbols are answers.
bool answers_are_last(const Example& example, int64_t count) {
  const auto n = static_cast<int64_t>(example.symbols.size());
  for (int64_t i = 0; i < n; ++i)
    if (example.is_answer[static_cast<size_t>(i)] != (i >= n - count)) return false;
  return true;
}

}  // namespace

TEST_CASE("every example has the promised size and differs from those of other streams") {
  for (const TaskConfig& config : small_tasks()) {
    CAPTURE(config.kind);
    const Task task(config);
    std::set<std::vector<int32_t>> seen;
    for (const uint64_t seed : {kSeed, kSeed + 1})
      for (const uint64_t stream : {0u, 1u, 2u, 7u})
        for (int64_t i = 0; i < 50; ++i) {
          const Example example = task.example(seed, stream, i);
          REQUIRE(static_cast<int64_t>(example.symbols.size()) == task.shape().tokens);
          REQUIRE(example.symbols.size() == example.is_answer.size());
          REQUIRE(static_cast<int64_t>(answers_of(example).size()) == task.shape().answers);
          for (const int32_t symbol : example.symbols) {
            REQUIRE(symbol >= 0);
            REQUIRE(symbol < task.shape().symbols);
          }
          seen.insert(example.symbols);
        }
    CHECK(seen.size() == 2 * 4 * 50);
    // Again, in another order, from another object.
    const Task other(config);
    for (const int64_t i : {40, 3, 17})
      CHECK(other.example(kSeed, 7, i).symbols == task.example(kSeed, 7, i).symbols);
  }
}

TEST_CASE("streams are not shifted or scaled copies of each other") {
  // Symbols at equal places of two streams agree as often as chance says, at any small shift.
  const Task task({.kind = "palindrome", .items = 200, .gap = 1, .vocab = 4});
  for (const uint64_t stream : {1u, 2u})
    for (const int64_t shift : {0, 1, 2}) {
      int64_t equal = 0;
      for (int64_t i = 0; i < 50; ++i) {
        const Example a = task.example(kSeed, 0, i + shift), b = task.example(kSeed, stream, i);
        for (size_t at = 0; at < 200; ++at) equal += a.symbols[at] == b.symbols[at] ? 1 : 0;
      }
      // 10,000 draws of probability 1/4: standard deviation 43.
      CHECK(std::abs(equal - 2500) < 5 * 43);
    }
}

TEST_CASE("a palindrome ends with its integers in reverse") {
  const Task task({.kind = "palindrome"});  // as in the paper
  CHECK(task.shape().tokens == 32 + 50 + 32);
  for (int64_t i = 0; i < 20; ++i) {
    const Example example = task.example(kSeed, 0, i);
    CHECK(answers_are_last(example, 32));
    std::vector<int32_t> expected(example.symbols.begin(), example.symbols.begin() + 32);
    std::reverse(expected.begin(), expected.end());
    CHECK(answers_of(example) == expected);
    for (const int32_t integer : expected) CHECK(integer < 100);
    for (size_t at = 32; at < 82; ++at) CHECK(example.symbols[at] >= 100);
  }
}

TEST_CASE("every query of mqar is answered with the value of its key") {
  const Task task({.kind = "mqar", .length = 64, .pairs = 5, .vocab = 30});
  std::vector<int64_t> distances(27, 0);
  for (int64_t i = 0; i < 400; ++i) {
    const Example example = task.example(kSeed, 0, i);
    std::map<int32_t, int32_t> value_of;
    for (size_t at = 0; at < 10; at += 2) {
      CHECK(example.symbols[at] < 15);
      CHECK(example.symbols[at + 1] >= 15);
      CHECK(example.symbols[at + 1] < 30);
      value_of[example.symbols[at]] = example.symbols[at + 1];
    }
    REQUIRE(value_of.size() == 5);
    std::set<int32_t> asked;
    for (size_t at = 10; at < 64; at += 2) {
      REQUIRE(!example.is_answer[at]);
      if (example.is_answer[at + 1]) {
        CHECK(value_of.at(example.symbols[at]) == example.symbols[at + 1]);
        asked.insert(example.symbols[at]);
        ++distances[at / 2 - 5];
      } else {
        CHECK(example.symbols[at] == 30);
        CHECK(example.symbols[at + 1] == 30);
      }
    }
    CHECK(asked.size() == 5);
  }
  // Early slots are likelier: the power law of the paper.
  CHECK(distances[0] > 2 * distances[4]);
  CHECK(distances[1] > distances[10]);
  CHECK(*std::min_element(distances.begin(), distances.end()) > 0);
}

TEST_CASE("a needle's value is what follows its key behind a mark, at the depth asked for") {
  const int32_t mark = 12, ask = 13;
  for (const double depth : {-1.0, 0.0, 0.25, 1.0}) {
    CAPTURE(depth);
    TaskConfig config{.kind = "needle", .length = 60, .pairs = 3, .vocab = 12, .value_tokens = 2};
    if (depth >= 0) config.depth = depth;
    const Task task(config);
    std::set<int64_t> places;
    for (int64_t i = 0; i < 200; ++i) {
      const Example example = task.example(kSeed, 0, i);
      CHECK(answers_are_last(example, 2));
      const auto& s = example.symbols;
      REQUIRE(s[56] == ask);
      std::map<int32_t, std::vector<int32_t>> value_of;
      int64_t hay = 0, hay_before = -1;
      for (size_t at = 0; at < 56;) {
        if (s[at] == mark) {
          if (s[at + 1] == s[57]) hay_before = hay;
          value_of[s[at + 1]] = {s[at + 2], s[at + 3]};
          at += 4;
        } else {
          CHECK(s[at] < 12);
          ++hay;
          ++at;
        }
      }
      REQUIRE(value_of.size() == 3);
      CHECK(hay == 60 - 4 * 4);
      CHECK(value_of.at(s[57]) == answers_of(example));
      if (depth >= 0) CHECK(hay_before == std::llround(depth * 44));
      places.insert(hay_before);
    }
    CHECK((places.size() == 1) == (depth >= 0));
    if (depth < 0) CHECK(places.size() > 35);
  }
}

TEST_CASE("selective copy repeats what is no noise, in order") {
  const Task task({.kind = "selective_copy", .length = 40, .items = 6, .vocab = 5});
  std::vector<int64_t> uses(33, 0);
  for (int64_t i = 0; i < 300; ++i) {
    const Example example = task.example(kSeed, 0, i);
    CHECK(answers_are_last(example, 6));
    CHECK(example.symbols[33] == 6);
    std::vector<int32_t> items;
    for (size_t at = 0; at < 33; ++at)
      if (example.symbols[at] != 5) {
        items.push_back(example.symbols[at]);
        ++uses[at];
      }
    CHECK(items == answers_of(example));
  }
  // Everywhere equally likely: 300 * 6 / 33 = 54.5, standard deviation 6.7.
  for (const int64_t count : uses) CHECK(std::abs(static_cast<double>(count) - 54.5) < 5 * 6.7);
}

TEST_CASE("regression outputs are linear in the inputs up to half a bin") {
  const int64_t dimension = 3, bins = 1000;
  const Task task({.kind = "regression", .pairs = 12, .dimension = dimension, .bins = bins});
  const double width = 6.0 / bins;
  const auto middle = [&](int32_t bin) { return (bin + 0.5) * width - 3; };
  double sum = 0, sum_squares = 0;
  for (int64_t i = 0; i < 300; ++i) {
    const Example example = task.example(kSeed, 0, i);
    // Normal equations over all points, solved by elimination; points at the clamped ends left out.
    double a[3][4] = {};
    std::vector<std::array<double, 4>> points;
    for (size_t at = 0; at < 48; at += 4) {
      std::array<double, 4> point{};
      for (size_t d = 0; d < 3; ++d) {
        REQUIRE(!example.is_answer[at + d]);
        point[d] = middle(example.symbols[at + d]);
      }
      REQUIRE(example.is_answer[at + 3]);
      const int32_t bin = example.symbols[at + 3] - static_cast<int32_t>(bins);
      point[3] = middle(bin);
      sum += point[3];
      sum_squares += point[3] * point[3];
      if (bin > 0 && bin < bins - 1) points.push_back(point);
    }
    for (const auto& p : points)
      for (size_t r = 0; r < 3; ++r)
        for (size_t c = 0; c < 4; ++c) a[r][c] += p[r] * p[c];
    for (size_t k = 0; k < 3; ++k)
      for (size_t r = 0; r < 3; ++r) {
        if (r == k) continue;
        const double factor = a[r][k] / a[k][k];
        for (size_t c = k; c < 4; ++c) a[r][c] -= factor * a[k][c];
      }
    for (const auto& p : points) {
      double y = 0;
      for (size_t d = 0; d < 3; ++d) y += a[d][3] / a[d][d] * p[d];
      // Each output is off by half a bin at most; least squares leave about as much.
      CHECK(std::abs(y - p[3]) < width);
    }
  }
  CHECK(std::abs(sum / 3600) < 0.15);
  CHECK(sum_squares / 3600 == doctest::Approx(1).epsilon(0.15));
}

TEST_CASE("noise makes regression outputs less than linear") {
  const Task exact({.kind = "regression", .pairs = 40, .dimension = 1, .bins = 64});
  const Task noisy({.kind = "regression", .pairs = 40, .dimension = 1, .bins = 64, .noise = 0.5});
  const auto ambiguous = [](const Task& task) {
    int64_t count = 0;
    for (int64_t i = 0; i < 20; ++i) {
      const Example example = task.example(kSeed, 0, i);
      std::map<int32_t, std::set<int32_t>> outputs;
      for (size_t at = 0; at < 80; at += 2)
        outputs[example.symbols[at]].insert(example.symbols[at + 1]);
      for (const auto& [input, all] : outputs) count += all.size() > 1 ? 1 : 0;
    }
    return count;
  };
  CHECK(ambiguous(exact) == 0);
  CHECK(ambiguous(noisy) > 50);
}

TEST_CASE("distinct numbers are a uniform draw without repetition") {
  Philox random(5);
  std::vector<int64_t> first(6, 0), any(6, 0);
  for (int i = 0; i < 6000; ++i) {
    const std::vector<int64_t> drawn = draw_distinct(6, 3, random);
    REQUIRE(std::set(drawn.begin(), drawn.end()).size() == 3);
    ++first[static_cast<size_t>(drawn[0])];
    for (const int64_t one : drawn) ++any[static_cast<size_t>(one)];
  }
  for (size_t n = 0; n < 6; ++n) {
    CHECK(std::abs(first[n] - 1000) < 5 * 29);  // sqrt(6000 * 5/36)
    CHECK(std::abs(any[n] - 3000) < 5 * 39);    // sqrt(6000 / 4)
  }
  std::vector<int64_t> all = draw_distinct(100, 100, random);
  std::sort(all.begin(), all.end());
  for (int64_t i = 0; i < 100; ++i) CHECK(all[static_cast<size_t>(i)] == i);
  CHECK_THROWS(draw_distinct(2, 3, random));
}

TEST_CASE("a weighted draw has the probabilities of drawing one after another") {
  Philox random(6);
  const std::vector<double> weights = {1, 2, 5};
  // P({a, b}) = a/8 * b/(8-a) + b/8 * a/(8-b)
  const auto chance = [&](double a, double b) { return a / 8 * b / (8 - a) + b / 8 * a / (8 - b); };
  std::map<std::vector<int64_t>, double> count;
  for (int i = 0; i < 20000; ++i) count[draw_weighted(weights, 2, random)] += 1;
  CHECK(count[{0, 1}] / 20000 == doctest::Approx(chance(1, 2)).epsilon(0.1));
  CHECK(count[{0, 2}] / 20000 == doctest::Approx(chance(1, 5)).epsilon(0.05));
  CHECK(count[{1, 2}] / 20000 == doctest::Approx(chance(2, 5)).epsilon(0.03));
}

TEST_CASE("impossible settings are refused with what was expected") {
  const auto error = [](const TaskConfig& config) {
    try {
      const Task task(config);
    } catch (const ConfigError& caught) {
      return std::string(caught.what());
    }
    return std::string();
  };
  const auto has = [](const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  };
  CHECK(has(error({.kind = "needel"}), "did you mean 'needle'"));
  CHECK(has(error({.kind = "mqar", .pairs = 11, .vocab = 20}), "at most the 10 keys"));
  CHECK(has(error({.kind = "palindrome", .length = 4}), "length: does not belong"));
  CHECK(error({.kind = "palindrome", .items = 1, .gap = 1, .vocab = 2}).empty());
}

TEST_CASE("equal tasks have equal identities, given or by default") {
  CHECK(Task({.kind = "mqar"}).identity() == Task({.kind = "mqar", .pairs = 8}).identity());
  CHECK(Task({.kind = "mqar"}).identity() != Task({.kind = "mqar", .pairs = 9}).identity());
  CHECK(Task({.kind = "needle"}).identity() !=
        Task({.kind = "needle", .depth = 0.5}).identity());
}

TEST_CASE("an example is printed with its answers in brackets") {
  Example example;
  example.prompt(3);
  for (int i = 0; i < 5; ++i) example.prompt(9);
  example.prompt(4);
  example.answer(4);
  example.answer(4);
  CHECK(format_example(example) == "3 9 x5 4 [4] [4]");
}
