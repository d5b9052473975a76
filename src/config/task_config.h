// A synthetic task as a source of training data: which one and how hard. data/task.h makes examples.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/field.h"

namespace lh {

/// The tasks a recipe may name. A new task adds its row in task_config.cpp and in data/task.cpp.
std::vector<std::string> task_kinds();

/// Sizes of every example of a task.
struct TaskShape {
  int64_t tokens = 0;   // of a whole example, answers included
  int64_t answers = 0;  // of them: what a model is asked for
  int64_t symbols = 0;  // distinct symbols, numbered from 0
};

/// What is not given has the default of the kind; what does not belong to the kind stays empty.
struct TaskConfig {
  std::string kind;  // one of task_kinds()
  std::optional<int64_t> length = {};
  std::optional<int64_t> items = {};
  std::optional<int64_t> gap = {};
  std::optional<int64_t> pairs = {};
  std::optional<int64_t> vocab = {};
  std::optional<int64_t> value_tokens = {};
  std::optional<int64_t> dimension = {};
  std::optional<int64_t> bins = {};
  std::optional<double> noise = {};
  std::optional<double> depth = {};  // needle only; empty: anywhere

  bool operator==(const TaskConfig&) const = default;

  /// With the defaults of the kind filled in. ConfigError for an unknown kind.
  TaskConfig resolved() const;
  /// The same of a task with or without its defaults.
  TaskShape shape() const;
  /// Settings that are given and do not belong to the kind.
  std::vector<std::string> foreign_settings() const;
  /// "mqar length 128 pairs 8 vocab 8192": equal for tasks that make equal examples.
  std::string str() const;

  template <typename Visitor, typename Self>
  static void visit(Visitor& v, Self& self);
};

template <typename Visitor, typename Self>
void TaskConfig::visit(Visitor& v, Self& self) {
  // No count comes near what a product of two of them could overflow.
  const Rule count = between(1, 1e9);
  v.field("kind", self.kind, Doc{"which synthetic task"}, one_of(task_kinds()));
  v.field("length", self.length,
          Doc{"mqar (128), needle (1024), selective_copy (4096): length of an example", "tokens"},
          count);
  v.field("items", self.items,
          Doc{"palindrome (32): integers to reverse; selective_copy (16): items to copy", "items"},
          count);
  v.field("gap", self.gap,
          Doc{"palindrome (50): length of the instruction between integers and answer", "tokens"},
          count);
  v.field("pairs", self.pairs,
          Doc{"mqar (8): keys with values, each asked for once; needle (1): needles, one of them "
              "asked for; regression (41): points",
              "pairs"},
          count);
  v.field("vocab", self.vocab,
          Doc{"palindrome (100): integers to draw from; mqar (8192): half are keys, half values; "
              "needle (64): for the haystack, keys and values; selective_copy (15): items to draw "
              "from",
              "symbols"},
          between(2, 1e9));
  v.field("value_tokens", self.value_tokens, Doc{"needle (7): length of a value", "tokens"}, count);
  v.field("dimension", self.dimension,
          Doc{"regression (20): inputs of the linear function", "inputs"}, count);
  v.field("bins", self.bins,
          Doc{"regression (64): bins that numbers are rounded to, as tokens are no numbers",
              "symbols"},
          between(2, 5e8));
  v.field("noise", self.noise,
          Doc{"regression (0): standard deviation added to the outputs, which have 1"},
          at_least(0));
  v.field("depth", self.depth,
          Doc{"needle: share of the haystack before the needle asked for; null: any"},
          between(0, 1));
}

}  // namespace lh
