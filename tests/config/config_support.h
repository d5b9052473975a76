// A small valid recipe, and what is wrong with a changed one.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/load.h"

namespace lh::test {

inline constexpr const char* kModel =
    "model:\n"
    "  hidden_size: 64\n"
    "  intermediate_size: 128\n"
    "  num_layers: 2\n"
    "  num_heads: 4\n"
    "  max_position: 256\n";
inline constexpr const char* kData = "data:\n  train: [{path: a.h5}]\n  seq_tokens: 128\n";
inline constexpr const char* kSchedule = "schedule: {steps: 10, batch_tokens: 1024}\n";

inline std::string small_recipe() {
  return std::string(kModel) + kData + kSchedule;
}

inline Recipe parse(const std::string& text, const std::vector<std::string>& sets = {}) {
  return parse_recipe_text(text, "r.yaml", sets);
}

/// The message of the ConfigError; "" when the recipe is fine.
inline std::string errors(const std::string& text, const std::vector<std::string>& sets = {}) {
  try {
    parse(text, sets);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

inline size_t lines(const std::string& text) {
  size_t count = text.empty() ? 0 : 1;
  for (const char c : text) count += c == '\n' ? 1 : 0;
  return count;
}

inline std::vector<std::filesystem::path> shipped_recipes() {
  std::vector<std::filesystem::path> all;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(LH_SOURCE_DIR "/recipes"))
    if (entry.path().extension() == ".yaml") all.push_back(entry.path());
  return all;
}

}  // namespace lh::test
