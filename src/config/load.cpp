// Text to Recipe: parse, put parts under sections, apply overrides, read, validate.
#include "config/load.h"

#include <algorithm>

#include "base/error.h"
#include "base/hash.h"
#include "config/overrides.h"
#include "config/parts.h"
#include "config/reader.h"
#include "config/source_text.h"

namespace lh {
namespace fs = std::filesystem;
namespace {

/// Adds the broken rules of a struct that was read, each at the first of its keys that was given.
void add_broken_rules(const std::vector<RecipeProblem>& broken, const Origins& origins,
                      Problems& problems) {
  for (const RecipeProblem& problem : broken) {
    // A key that could not even be read has been reported; rules about its default would confuse.
    const bool reported = std::any_of(problem.keys.begin(), problem.keys.end(),
                                      [&](const std::string& key) { return problems.concerns(key); });
    if (reported) continue;
    const auto given = std::find_if(problem.keys.begin(), problem.keys.end(),
                                    [&](const std::string& key) { return origins.contains(key); });
    const std::string& key = problem.keys.front();
    std::string message = problem.message;
    // A default outside the allowed range is how a struct says that a key must be given.
    if (problem.keys.size() == 1 && given == problem.keys.end())
      message = "is required: " + message.substr(0, message.rfind(", got "));
    problems.add(find_origin(origins, given == problem.keys.end() ? key : *given), key, message);
  }
}

/// `folders` is null where parts have no place: inside a part.
template <typename Struct>
Struct read_config(std::string_view raw, const std::string& name,
                   std::span<const std::string> sets, const PartFolders* folders,
                   std::vector<RecipeProblem> (*validate)(const Struct&)) {
  Problems problems;
  YamlNode root = parse_yaml(clean_config_text(raw, name), name, problems);
  if (!root.is_map()) {
    problems.add(root.position, "",
                 fmt::format("expected sections with keys, got {}",
                             root.is_null() ? "an empty file" : root.description()));
    problems.throw_if_any();
  }
  const std::vector<Override> overrides = parse_overrides(sets, problems);
  if (folders != nullptr) {
    for (const Override& each : overrides)
      if (chooses_part(each)) apply_override(root, each, problems);
    include_parts(root, *folders, problems);
  }
  for (const Override& each : overrides)
    if (folders == nullptr || !chooses_part(each)) apply_override(root, each, problems);

  Struct result;
  read_value(root, "", result, problems);
  Origins origins{{"", root.position}};
  collect_origins(root, "", origins);
  add_broken_rules(validate(result), origins, problems);
  problems.throw_if_any();
  return result;
}

}  // namespace

Recipe load_recipe(const fs::path& path, std::span<const std::string> sets) {
  const std::string text = read_config_file(path);
  const fs::path folder = fs::absolute(path).parent_path();
  const PartFolders folders{folder, find_configs(folder)};
  return read_config<Recipe>(text, path.string(), sets, &folders, validate_recipe);
}

Recipe parse_recipe_text(std::string_view text, const std::string& name,
                         std::span<const std::string> sets, const fs::path& configs_dir) {
  const PartFolders folders{{}, configs_dir.empty() ? find_configs({}) : configs_dir};
  return read_config<Recipe>(text, name, sets, &folders, validate_recipe);
}

ModelConfig load_model_config(const fs::path& path, std::span<const std::string> sets) {
  return parse_model_config_text(read_config_file(path), path.string(), sets);
}

ModelConfig parse_model_config_text(std::string_view text, const std::string& name,
                                    std::span<const std::string> sets) {
  return read_config<ModelConfig>(text, name, sets, nullptr, validate_model_config);
}

TaskConfig parse_task_config_text(std::string_view text, const std::string& name,
                                  std::span<const std::string> sets) {
  return read_config<TaskConfig>(text, name, sets, nullptr, validate_task_config);
}

std::string recipe_digest(const Recipe& recipe) {
  return digest_of(dump_recipe(recipe));
}

}  // namespace lh
