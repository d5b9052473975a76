#include "data/task.h"

#include "base/error.h"
#include "config/load.h"
#include "data/tasks/mqar.h"
#include "data/tasks/needle.h"
#include "data/tasks/palindrome.h"
#include "data/tasks/regression.h"
#include "data/tasks/selective_copy.h"

namespace lh {
namespace {

/// Raised when the same settings and seed make other examples, so that no run resumes into them.
constexpr int kVersion = 1;

/// Apart from weights, shuffling and sampling, which use the seed and small streams as they are.
constexpr uint32_t kDomain = 0x7461736B;  // "task"

}  // namespace

void Example::prompt(int64_t symbol) {
  symbols.push_back(static_cast<int32_t>(symbol));
  is_answer.push_back(false);
}

void Example::answer(int64_t symbol) {
  symbols.push_back(static_cast<int32_t>(symbol));
  is_answer.push_back(true);
}

Task::Task(const TaskConfig& config) {
  std::string problems;
  for (const RecipeProblem& problem : validate_task_config(config))
    problems += fmt::format("\n  {}: {}", problem.keys.front(), problem.message);
  if (!problems.empty()) fail<ConfigError>("task '{}':{}", config.kind, problems);
  config_ = config.resolved();
  shape_ = config_.shape();
  maker_ = config_.kind == "palindrome"       ? make_palindrome
           : config_.kind == "mqar"           ? make_mqar
           : config_.kind == "needle"         ? make_needle
           : config_.kind == "selective_copy" ? make_selective_copy
                                              : make_regression;
}

Example Task::example(uint64_t seed, uint64_t stream, int64_t index) const {
  LH_CHECK(index >= 0, "[task] example {}", index);
  // Two hashes name a generator of 128 random bits, so no two examples share numbers.
  const PhiloxBlock key = philox4x32({static_cast<uint32_t>(stream),
                                      static_cast<uint32_t>(stream >> 32), kDomain, 0}, seed);
  const auto word = [](const PhiloxBlock& block, int at) {
    return block[static_cast<size_t>(at)] | static_cast<uint64_t>(block[static_cast<size_t>(at) + 1])
                                                << 32;
  };
  const auto number = static_cast<uint64_t>(index);
  const PhiloxBlock own = philox4x32({static_cast<uint32_t>(number),
                                      static_cast<uint32_t>(number >> 32), key[2], key[3]},
                                     word(key, 0));
  Philox random(word(own, 0), word(own, 2));
  Example example = maker_(config_, random);
  LH_CHECK(static_cast<int64_t>(example.symbols.size()) == shape_.tokens,
           "[task] an example of {} has {} tokens, expected {}", config_.kind,
           example.symbols.size(), shape_.tokens);
  return example;
}

std::string Task::identity() const {
  return fmt::format("{} (version {})", config_.str(), kVersion);
}

std::string format_example(const Example& example) {
  std::string text;
  for (size_t i = 0; i < example.symbols.size();) {
    size_t end = i + 1;
    while (end < example.symbols.size() && example.symbols[end] == example.symbols[i] &&
           example.is_answer[end] == example.is_answer[i])
      ++end;
    const std::string symbol = example.is_answer[i] ? fmt::format("[{}]", example.symbols[i])
                                                    : fmt::format("{}", example.symbols[i]);
    if (end - i > 3) {
      text += fmt::format("{}{} x{}", text.empty() ? "" : " ", symbol, end - i);
      i = end;
    } else {
      for (; i < end; ++i) text += (text.empty() ? "" : " ") + symbol;
    }
  }
  return text;
}

}  // namespace lh
