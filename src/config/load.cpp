// Text to Recipe: parse, put parts under sections, apply overrides, read, validate.
#include "config/load.h"

#include <algorithm>
#include <cstdlib>

#include "base/error.h"
#include "base/hash.h"
#include "config/problems.h"
#include "config/reader.h"
#include "config/source_text.h"
#include "config/validate.h"
#include "config/yaml.h"

namespace lh {
namespace fs = std::filesystem;
namespace {

/// Adds the part's keys that `own` does not set; sections of both are merged key by key.
void merge_under(YamlNode& own, const YamlNode& part) {
  for (const YamlEntry& entry : part.entries) {
    YamlEntry* mine = own.find(entry.key);
    if (mine == nullptr) own.entries.push_back(entry);
    else if (mine->value.is_map() && entry.value.is_map()) merge_under(mine->value, entry.value);
  }
}

/// Replaces `from: path` in each section by the part's keys.
void include_parts(YamlNode& root, const fs::path& recipe_folder, const fs::path& configs,
                   Problems& problems) {
  for (YamlEntry& section : root.entries) {
    if (!section.value.is_map()) continue;
    auto& entries = section.value.entries;
    const auto from = std::find_if(entries.begin(), entries.end(),
                                   [](const YamlEntry& entry) { return entry.key == "from"; });
    if (from == entries.end()) continue;
    const YamlEntry include = *from;
    entries.erase(from);
    const std::string key = join_key(section.key, "from");
    if (!include.value.is_scalar()) {
      problems.add(include.position, key,
                   "expected the path of a part, got " + include.value.description());
      continue;
    }
    const std::string& name = include.value.text;
    const bool beside = name.starts_with("./") || name.starts_with("../");
    const fs::path path = fs::path(name).is_absolute() ? fs::path(name)
                          : beside                     ? recipe_folder / name
                                                       : configs / name;
    if (!beside && configs.empty() && !fs::path(name).is_absolute()) {
      problems.add(include.position, key,
                   "no configs folder found beside or above the recipe: set LH_CONFIGS to it");
      continue;
    }
    try {
      const std::string text = clean_config_text(read_config_file(path), path.string());
      YamlNode part = parse_yaml(text, path.string(), problems);
      if (part.is_map() && part.find("from") != nullptr)
        problems.add(part.find("from")->position, "from", "a part can't include another part");
      else if (part.is_map()) merge_under(section.value, part);
      else if (!part.is_null())
        problems.add(part.position, key, "expected a section of keys, got " + part.description());
    } catch (const ConfigError& error) {
      problems.add(include.position, key, error.what());
    }
  }
}

/// Sets one key, making sections on the way. Numeric parts of the path index lists.
void apply_override(YamlNode& root, const std::string& set, Problems& problems) {
  const auto source = std::make_shared<const std::string>("--set " + set);
  const Position position{source, 1, 1};
  const size_t equals = set.find('=');
  if (equals == std::string::npos || equals == 0) {
    problems.add(position, "", "expected section.key=value");
    return;
  }
  const std::string path = set.substr(0, equals);
  YamlNode value = parse_yaml(clean_config_text(set.substr(equals + 1), *source), *source, problems);
  YamlNode* at = &root;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t dot = std::min(path.find('.', begin), path.size());
    const std::string part = path.substr(begin, dot - begin);
    begin = dot + 1;
    if (at->is_list()) {
      const auto index = parse_integer(part);
      if (!index || *index < 0 || *index >= static_cast<int64_t>(at->items.size())) {
        problems.add(position, path,
                     fmt::format("expected an item from 0 to {}, got '{}'",
                                 static_cast<int64_t>(at->items.size()) - 1, part));
        return;
      }
      at = &at->items[static_cast<size_t>(*index)];
      continue;
    }
    if (!at->is_map()) {
      *at = YamlNode{};
      at->kind = YamlNode::Kind::kMap;
      at->position = position;
    }
    YamlEntry* entry = at->find(part);
    if (entry == nullptr) {
      at->entries.push_back({part, position, {}});
      entry = &at->entries.back();
    }
    entry->position = position;
    at = &entry->value;
  }
  *at = std::move(value);
}

fs::path find_configs(const fs::path& recipe_folder) {
  if (const char* folder = std::getenv("LH_CONFIGS")) return folder;
  if (recipe_folder.empty()) return {};
  std::error_code ignored;  // an unreadable folder above holds no configs for us
  for (fs::path at = fs::absolute(recipe_folder);; at = at.parent_path()) {
    if (fs::is_directory(at / "configs", ignored)) return at / "configs";
    if (at == at.parent_path()) return {};
  }
}

template <typename Struct>
Struct read_all(std::string_view raw, const std::string& name, std::span<const std::string> sets,
                const fs::path& folder, const fs::path& configs, bool with_parts,
                std::vector<RecipeProblem> (*validate)(const Struct&)) {
  Problems problems;
  KeyPositions positions;
  const std::string text = clean_config_text(raw, name);
  YamlNode root = parse_yaml(text, name, problems);
  if (!root.is_map()) {
    problems.add(root.position, "", "expected a mapping of sections, got " + root.description());
    problems.throw_if_any();
  }
  if (with_parts) include_parts(root, folder, configs, problems);
  for (const std::string& set : sets) apply_override(root, set, problems);
  Struct result;
  ConfigReader(problems, positions).read_struct(root, "", result);
  for (const RecipeProblem& problem : validate(result)) {
    // A key that could not even be read has been reported; rules about its default would confuse.
    const bool known = std::any_of(problem.keys.begin(), problem.keys.end(),
                                   [&](const std::string& key) { return problems.concerns(key); });
    if (known) continue;
    Position at = root.position;
    for (auto key = problem.keys.rbegin(); key != problem.keys.rend(); ++key)
      if (const auto found = positions.find(*key); found != positions.end()) at = found->second;
    problems.add(at, problem.keys.empty() ? "" : problem.keys.front(), problem.message);
  }
  problems.throw_if_any();
  return result;
}

}  // namespace

Recipe load_recipe(const fs::path& path, std::span<const std::string> sets) {
  const fs::path folder = fs::absolute(path).parent_path();
  return read_all<Recipe>(read_config_file(path), path.string(), sets, folder, find_configs(folder),
                          true, validate_recipe);
}

Recipe parse_recipe_text(std::string_view text, const std::string& name,
                         std::span<const std::string> sets, const fs::path& configs_dir) {
  return read_all<Recipe>(text, name, sets, {},
                          configs_dir.empty() ? find_configs({}) : configs_dir, true,
                          validate_recipe);
}

ModelConfig load_model_config(const fs::path& path, std::span<const std::string> sets) {
  return parse_model_config_text(read_config_file(path), path.string(), sets);
}

ModelConfig parse_model_config_text(std::string_view text, const std::string& name,
                                    std::span<const std::string> sets) {
  return read_all<ModelConfig>(text, name, sets, {}, {}, false, validate_model_config);
}

std::string recipe_digest(const Recipe& recipe) {
  return digest_of(dump_recipe(recipe));
}

}  // namespace lh
