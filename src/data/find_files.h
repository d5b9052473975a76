// Paths and globs to the files they name.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace lh {

/// Each pattern is a path, or a glob (* ? []) whose matches come sorted. A file named twice is
/// listed once, at its first place; "-" stays as it is. ConfigError when a pattern matches nothing
/// or a path is a folder.
std::vector<std::filesystem::path> find_files(std::span<const std::string> patterns);

}  // namespace lh
