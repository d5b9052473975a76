// `--set section.key=value`: changes to a recipe's tree before it is read.
#pragma once

#include <span>
#include <string>

#include "config/yaml.h"

namespace lh {

/// An override with its value already parsed.
struct Override {
  std::string key;
  YamlNode value;
};

/// Splits and parses the overrides; wrong ones are added to `problems` and left out. A value in
/// brackets, braces or quotes is YAML, any other is taken as it stands; nothing is empty text.
std::vector<Override> parse_overrides(std::span<const std::string> sets, Problems& problems);

/// True for overrides that choose a part or a whole section, which must act before parts load.
bool chooses_part(const Override& override_);

/// Sets one key, making sections on the way. Numbers in the key index lists.
void apply_override(YamlNode& root, const Override& override_, Problems& problems);

}  // namespace lh
