// YAML as a plain tree that remembers where everything stands. The only user of yaml-cpp is
// yaml.cpp; it listens to the parser's events, because yaml-cpp's own tree silently keeps
// duplicate keys and would recurse or expand without limit on hostile input.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/problems.h"

namespace lh {

struct YamlEntry;

struct YamlNode {
  enum class Kind { kNull, kScalar, kList, kMap };
  Kind kind = Kind::kNull;
  std::string text;     // of a scalar
  bool quoted = false;  // a scalar in quotes or a block scalar: always text, never a number
  Position position;
  std::vector<YamlNode> items;     // of a list
  std::vector<YamlEntry> entries;  // of a map, in file order, keys unique

  bool is_map() const { return kind == Kind::kMap; }
  bool is_list() const { return kind == Kind::kList; }
  bool is_scalar() const { return kind == Kind::kScalar; }
  bool is_null() const { return kind == Kind::kNull; }

  YamlEntry* find(std::string_view key);
  const YamlEntry* find(std::string_view key) const;
  /// What it is, for messages: "the text 'x'", "'1.5'", "a list", "a section", "nothing".
  std::string description() const;
};

struct YamlEntry {
  std::string key;
  Position position;  // of the key
  YamlNode value;
};

/// Nesting, values (aliases counted in full, long text as several) and keys of one section that
/// no recipe comes near.
inline constexpr size_t kMaxYamlDepth = 24;
inline constexpr size_t kMaxYamlNodes = 20'000;
inline constexpr size_t kMaxYamlKeys = 1'000;

/// Parses one document of already cleaned text (source_text.h). Duplicate keys are added to
/// `problems` and the first one kept; a syntax error throws ConfigError with its position.
YamlNode parse_yaml(std::string_view text, const std::string& name, Problems& problems);

}  // namespace lh
