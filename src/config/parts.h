// `from:` in a section: where parts are looked for, and how they are put under the section.
#pragma once

#include <filesystem>

#include "config/yaml.h"

namespace lh {

/// Where `from:` looks. Either may be empty.
struct PartFolders {
  std::filesystem::path recipe;   // of the recipe file: for ./x and ../x
  std::filesystem::path configs;  // for every other relative path
};

/// $LH_CONFIGS, or else the nearest configs/ beside or above `recipe_folder`, or else nothing.
std::filesystem::path find_configs(const std::filesystem::path& recipe_folder);

/// Replaces `from: path` in each section by the keys of that part which the section does not set
/// itself; sections inside merge key by key, lists and values do not. A part holds the keys of
/// the section and includes no other part.
void include_parts(YamlNode& root, const PartFolders& folders, Problems& problems);

}  // namespace lh
