// The text of a config file, made safe for the YAML parser: size, encoding and indentation are
// checked first, so that a wrong file gets a plain message instead of a parser's.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "config/problems.h"

namespace lh {

/// Larger than any sensible recipe; bounds the time a hostile one can take.
inline constexpr size_t kMaxConfigBytes = 256 * 1024;

/// Reads a regular file of at most kMaxConfigBytes; ConfigError names the path and the reason.
std::string read_config_file(const std::filesystem::path& path);

/// Drops a UTF-8 byte order mark, turns CRLF and CR into LF, and refuses what cannot be a
/// recipe (binary data, other encodings, tabs as indentation, too much text). ConfigError.
std::string clean_config_text(std::string_view text, const std::string& name);

}  // namespace lh
