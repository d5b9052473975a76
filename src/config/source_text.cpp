#include "config/source_text.h"

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"

namespace lh {
namespace fs = std::filesystem;

namespace {

/// Bytes of the valid UTF-8 character that starts at text[i], or 0. Refuses overlong forms,
/// surrogates and values above U+10FFFF.
size_t utf8_length(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) {
    return i + k < text.size() ? static_cast<unsigned char>(text[i + k]) : 0u;
  };
  const auto continues = [&](size_t k) { return (byte(k) & 0xC0) == 0x80; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return continues(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    if (!continues(1) || !continues(2)) return 0;
    if (first == 0xE0 && byte(1) < 0xA0) return 0;
    if (first == 0xED && byte(1) > 0x9F) return 0;
    return 3;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    if (!continues(1) || !continues(2) || !continues(3)) return 0;
    if (first == 0xF0 && byte(1) < 0x90) return 0;
    if (first == 0xF4 && byte(1) > 0x8F) return 0;
    return 4;
  }
  return 0;
}

}  // namespace

std::string read_config_file(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found)
    fail<ConfigError>("{}: no such file", path.string());
  if (error) fail<ConfigError>("{}: {}", path.string(), error.message());
  if (fs::is_directory(status))
    fail<ConfigError>("{}: expected a YAML file, got a folder", path.string());
  // Devices and pipes can be endless, so they are refused before the first read.
  if (!fs::is_regular_file(status))
    fail<ConfigError>("{}: expected a regular file", path.string());
  const uintmax_t bytes = fs::file_size(path, error);
  if (!error && bytes > kMaxConfigBytes)
    fail<ConfigError>("{}: expected a recipe of at most {}, got {}", path.string(),
                      format_bytes(kMaxConfigBytes), format_bytes(static_cast<double>(bytes)));
  try {
    return read_file(path);
  } catch (const IoError& io) {
    throw ConfigError(io.what());
  }
}

std::string clean_config_text(std::string_view text, const std::string& name) {
  if (text.size() > kMaxConfigBytes)
    fail<ConfigError>("{}: expected a recipe of at most {}, got {}", name,
                      format_bytes(kMaxConfigBytes),
                      format_bytes(static_cast<double>(text.size())));
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF"))
    fail<ConfigError>("{}: expected UTF-8 text, got UTF-16 (save the file as UTF-8)", name);

  std::string clean;
  clean.reserve(text.size());
  int line = 1;
  int column = 1;
  bool indenting = true;  // only blanks so far on this line
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (c == '\n' || c == '\r') {
      i += c == '\r' && i + 1 < text.size() && text[i + 1] == '\n' ? 2 : 1;
      clean += '\n';
      ++line;
      column = 1;
      indenting = true;
      continue;
    }
    const size_t length = utf8_length(text, i);
    const auto code = static_cast<unsigned char>(c);
    if (length == 0)
      fail<ConfigError>("{}:{}:{}: expected UTF-8 text, got the byte 0x{:02x}", name, line, column,
                        code);
    if ((code < 0x20 && c != '\t') || code == 0x7f)
      fail<ConfigError>("{}:{}:{}: expected text, got the control byte 0x{:02x} (a binary file?)",
                        name, line, column, code);
    if (c == '\t' && indenting)
      fail<ConfigError>("{}:{}:{}: a tab cannot indent YAML; use spaces", name, line, column);
    if (c != ' ') indenting = false;
    clean.append(text.substr(i, length));
    i += length;
    ++column;
  }
  return clean;
}

}  // namespace lh
