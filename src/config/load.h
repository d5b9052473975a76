// Recipes as text: reading with every problem reported at once, printing, explaining.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/recipe.h"

namespace lh {

/// Reads a recipe file, its `from:` parts and the overrides ("section.key=value"), in rising
/// precedence: defaults, part, recipe, override. Parts are looked up in $LH_CONFIGS or else in
/// the nearest configs/ folder beside or above the recipe; "./x" and "../x" mean beside it.
/// Throws one ConfigError that lists every problem, one per line, as
/// "file:line:column: key: expected X, got Y (did you mean 'z'?)".
Recipe load_recipe(const std::filesystem::path& path, std::span<const std::string> sets = {});

/// The same for text already in memory; `name` stands for the file in messages. With an empty
/// `configs_dir` only $LH_CONFIGS is searched for parts.
Recipe parse_recipe_text(std::string_view text, const std::string& name,
                         std::span<const std::string> sets = {},
                         const std::filesystem::path& configs_dir = {});

/// A model part (configs/model/*.yaml) alone, checked like the model section of a recipe.
ModelConfig load_model_config(const std::filesystem::path& path,
                              std::span<const std::string> sets = {});
ModelConfig parse_model_config_text(std::string_view text, const std::string& name,
                                    std::span<const std::string> sets = {});

/// The settings of a task alone, checked like a task of data.train.
TaskConfig parse_task_config_text(std::string_view text, const std::string& name,
                                  std::span<const std::string> sets = {});

/// Every key with its value, as YAML; parse_recipe_text(dump_recipe(r)) == r.
std::string dump_recipe(const Recipe& recipe);
std::string dump_model_config(const ModelConfig& model);

/// Digest (base/hash.h) of dump_recipe: equal for recipes that mean the same run.
std::string recipe_digest(const Recipe& recipe);

/// One key of the schema. List items and named entries appear as '*': "data.train.*.path".
struct KeyInfo {
  std::string key;
  std::string type;           // "integer", "number", "text", "true/false", "list of text", ...
  std::string default_value;  // as YAML
  std::string units;
  std::string meaning;
  std::string allowed;  // "", "at least 0", "one of a, b", ...
  bool is_section = false;
};
std::vector<KeyInfo> recipe_schema();

/// Text for people about one key, a section and all its keys, or (empty key) everything.
/// ConfigError for an unknown key, with the nearest known one.
std::string explain_recipe(std::string_view key = {});

/// A broken rule. `keys` are the keys it is about, the one to change first.
struct RecipeProblem {
  std::vector<std::string> keys;
  std::string message;  // "expected X, got Y"
};
/// Checks ranges and cross-field rules of a recipe built in code; empty when all is well.
std::vector<RecipeProblem> validate_recipe(const Recipe& recipe);
std::vector<RecipeProblem> validate_model_config(const ModelConfig& model);
std::vector<RecipeProblem> validate_task_config(const TaskConfig& task);

}  // namespace lh
