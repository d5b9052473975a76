// Synthetic tasks: endless examples drawn from a seed, whose answers are known exactly. They ask for
// what separates token mixers (recall, copying, regression in the context) on models that train in
// minutes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/philox.h"
#include "config/task_config.h"

namespace lh {

/// One document of a task. Symbols are numbers from 0 below the task's shape().symbols.
struct Example {
  std::vector<int32_t> symbols;
  std::vector<bool> is_answer;  // loss and accuracy count these and nothing else

  void prompt(int64_t symbol);
  void answer(int64_t symbol);
};

class Task {
 public:
  /// Settings as validate_task_config() accepts them; ConfigError for others.
  explicit Task(const TaskConfig& config);

  const TaskConfig& config() const { return config_; }  // defaults filled in
  const TaskShape& shape() const { return shape_; }

  /// Example `index` >= 0 of a stream: a pure function of its arguments and the settings, of
  /// shape().tokens symbols. Streams, and seeds, are independent of each other.
  Example example(uint64_t seed, uint64_t stream, int64_t index) const;

  /// Settings and version of the generator: equal for tasks that make equal examples.
  std::string identity() const;

 private:
  using Maker = Example (*)(const TaskConfig&, Philox&);

  TaskConfig config_;
  TaskShape shape_;
  Maker maker_;
};

/// For people: symbols as numbers, answers in brackets, long runs of one symbol counted.
std::string format_example(const Example& example);

}  // namespace lh
