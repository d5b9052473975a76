#include "config/task_config.h"

#include <array>
#include <utility>

#include "base/error.h"
#include "base/text.h"

namespace lh {
namespace {

struct Count {
  const char* name;
  std::optional<int64_t> TaskConfig::*member;
};
constexpr std::array kCounts = {Count{"length", &TaskConfig::length},
                                Count{"items", &TaskConfig::items},
                                Count{"gap", &TaskConfig::gap},
                                Count{"pairs", &TaskConfig::pairs},
                                Count{"vocab", &TaskConfig::vocab},
                                Count{"value_tokens", &TaskConfig::value_tokens},
                                Count{"dimension", &TaskConfig::dimension},
                                Count{"bins", &TaskConfig::bins}};

/// One row per kind: its settings with their defaults, those of the papers (data/tasks/*.h).
const std::vector<TaskConfig>& task_table() {
  static const std::vector<TaskConfig> table = {
      {.kind = "palindrome", .items = 32, .gap = 50, .vocab = 100},
      {.kind = "mqar", .length = 128, .pairs = 8, .vocab = 8192},
      {.kind = "needle", .length = 1024, .pairs = 1, .vocab = 64, .value_tokens = 7},
      {.kind = "selective_copy", .length = 4096, .items = 16, .vocab = 15},
      {.kind = "regression", .pairs = 41, .dimension = 20, .bins = 64, .noise = 0.0},
  };
  return table;
}

const TaskConfig& row_of(const std::string& kind) {
  for (const TaskConfig& row : task_table())
    if (row.kind == kind) return row;
  const std::vector<std::string> kinds = task_kinds();
  fail<ConfigError>("unknown task '{}'{}; expected one of {}", kind, did_you_mean(kind, kinds),
                    fmt::join(kinds, ", "));
}

}  // namespace

std::vector<std::string> task_kinds() {
  std::vector<std::string> kinds;
  for (const TaskConfig& row : task_table()) kinds.push_back(row.kind);
  return kinds;
}

TaskConfig TaskConfig::resolved() const {
  TaskConfig result = row_of(kind);
  for (const Count& count : kCounts)
    if (this->*count.member && result.*count.member) result.*count.member = this->*count.member;
  if (noise && result.noise) result.noise = noise;
  if (kind == "needle") result.depth = depth;
  return result;
}

std::vector<std::string> TaskConfig::foreign_settings() const {
  const TaskConfig& row = row_of(kind);
  std::vector<std::string> foreign;
  for (const Count& count : kCounts)
    if (this->*count.member && !(row.*count.member)) foreign.emplace_back(count.name);
  if (noise && !row.noise) foreign.emplace_back("noise");
  if (depth && kind != "needle") foreign.emplace_back("depth");
  return foreign;
}

TaskShape TaskConfig::shape() const {
  const TaskConfig t = resolved();
  if (kind == "palindrome") return {2 * *t.items + *t.gap, *t.items, *t.vocab + 2};
  if (kind == "mqar") return {*t.length, *t.pairs, *t.vocab + 1};
  if (kind == "needle") return {*t.length, *t.value_tokens, *t.vocab + 2};
  if (kind == "selective_copy") return {*t.length, *t.items, *t.vocab + 2};
  return {*t.pairs * (*t.dimension + 1), *t.pairs, 2 * *t.bins};
}

std::string TaskConfig::str() const {
  const TaskConfig t = resolved();
  std::string text = kind;
  for (const Count& count : kCounts)
    if (t.*count.member) text += fmt::format(" {} {}", count.name, *(t.*count.member));
  if (t.noise) text += fmt::format(" noise {}", *t.noise);
  if (t.depth) text += fmt::format(" depth {}", *t.depth);
  return text;
}

}  // namespace lh
