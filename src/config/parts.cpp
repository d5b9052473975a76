#include "config/parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "base/error.h"
#include "base/text.h"
#include "config/source_text.h"

namespace lh {
namespace fs = std::filesystem;
namespace {

/// Adds the part's keys that `own` does not set.
void merge_under(YamlNode& own, const YamlNode& part) {
  for (const YamlEntry& entry : part.entries) {
    YamlEntry* mine = own.find(entry.key);
    if (mine == nullptr)
      own.entries.push_back(entry);
    else if (mine->value.is_map() && entry.value.is_map())
      merge_under(mine->value, entry.value);
  }
}

/// " (did you mean 'model/tiny.yaml'?)" from the files beside the missing one.
std::string near_part(const fs::path& missing, const std::string& name) {
  std::vector<std::string> names;
  std::error_code error;
  const fs::path prefix = fs::path(name).parent_path();
  for (const auto& entry : fs::directory_iterator(missing.parent_path(), error))
    if (entry.path().extension() == ".yaml")
      names.push_back((prefix / entry.path().filename()).string());
  std::sort(names.begin(), names.end());
  return did_you_mean(name, names);
}

/// The part's tree, or nothing after adding the problem.
std::optional<YamlNode> read_part(const YamlNode& include, const std::string& key,
                                  const PartFolders& folders, Problems& problems) {
  const auto refuse = [&](std::string_view message) {
    problems.add(include.position, key, message);
    return std::nullopt;
  };
  if (!include.is_scalar() || include.text.empty() ||
      include.text.find('\0') != std::string::npos)
    return refuse("expected the path of a part, got " + include.description());
  const std::string& name = include.text;
  const bool beside = name.starts_with("./") || name.starts_with("../");
  if (!beside && folders.configs.empty() && !fs::path(name).is_absolute())
    return refuse("there is no configs folder beside or above the recipe; set LH_CONFIGS to one");
  const fs::path path =
      ((beside ? folders.recipe : folders.configs) / name).lexically_normal();
  std::error_code error;
  if (!fs::exists(path, error))
    return refuse(fmt::format("expected a part, but there is no file {}{}", path.string(),
                              near_part(path, name)));
  try {
    YamlNode part =
        parse_yaml(clean_config_text(read_config_file(path), path.string()), path.string(), problems);
    if (part.is_null()) return part;
    if (!part.is_map()) return refuse("expected keys in the part, got " + part.description());
    if (const YamlEntry* nested = part.find("from"); nested != nullptr) {
      problems.add(nested->position, key, "a part can't include another part");
      return std::nullopt;
    }
    return part;
  } catch (const ConfigError& wrong) {
    return refuse(wrong.what());
  }
}

}  // namespace

fs::path find_configs(const fs::path& recipe_folder) {
  if (const char* folder = std::getenv("LH_CONFIGS"); folder != nullptr && *folder != '\0')
    return folder;
  if (recipe_folder.empty()) return {};
  std::error_code ignored;  // an unreadable folder above holds no configs for us
  for (fs::path at = fs::absolute(recipe_folder, ignored);; at = at.parent_path()) {
    if (fs::is_directory(at / "configs", ignored)) return at / "configs";
    if (at == at.parent_path()) return {};
  }
}

void include_parts(YamlNode& root, const PartFolders& folders, Problems& problems) {
  for (YamlEntry& section : root.entries) {
    if (!section.value.is_map()) continue;
    auto& entries = section.value.entries;
    const auto from = std::find_if(entries.begin(), entries.end(),
                                   [](const YamlEntry& entry) { return entry.key == "from"; });
    if (from == entries.end()) continue;
    const YamlNode include = std::move(from->value);
    entries.erase(from);
    const std::string key = join_key(section.key, "from");
    if (const auto part = read_part(include, key, folders, problems))
      merge_under(section.value, *part);
  }
}

}  // namespace lh
