// Fills a config struct from a YAML tree through the struct's own visit(). Only types and
// unknown keys are judged here; ranges and cross-field rules need the whole struct (rules.h).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/text.h"
#include "config/field.h"
#include "config/yaml.h"

namespace lh {

/// Where each key that was given stands: the value of a scalar, the key of a section or list.
using Origins = std::map<std::string, Position, std::less<>>;

void read_value(const YamlNode& node, const std::string& key, int64_t& value, Problems& problems);
void read_value(const YamlNode& node, const std::string& key, double& value, Problems& problems);
void read_value(const YamlNode& node, const std::string& key, bool& value, Problems& problems);
void read_value(const YamlNode& node, const std::string& key, std::string& value,
                Problems& problems);

/// Records the problem for a key that no field claims, with the nearest name in the section.
void report_unknown_key(const YamlEntry& entry, const std::string& section,
                        const std::vector<std::string>& known, Problems& problems);
/// Adds "expected <what>, got <node>".
void report_kind(const YamlNode& node, const std::string& key, std::string_view what,
                 Problems& problems);

/// visit() visitor that reads the fields of one section.
class SectionReader {
 public:
  SectionReader(const YamlNode& map, std::string section, Problems& problems)
      : map_(map), section_(std::move(section)), problems_(problems) {}

  template <typename T>
  void field(const char* name, T& member, const Doc&, const Rule&) {
    known_.emplace_back(name);
    if (const YamlEntry* entry = map_.find(name); entry != nullptr)
      read_value(entry->value, join_key(section_, name), member, problems_);
  }

  void report_unknown_keys() const {
    for (const YamlEntry& entry : map_.entries)
      report_unknown_key(entry, section_, known_, problems_);
  }

 private:
  const YamlNode& map_;
  std::string section_;
  Problems& problems_;
  std::vector<std::string> known_;
};

template <typename T>
void read_value(const YamlNode& node, const std::string& key, std::optional<T>& value,
                Problems& problems);
template <typename T>
void read_value(const YamlNode& node, const std::string& key, std::vector<T>& value,
                Problems& problems);
template <typename T>
void read_value(const YamlNode& node, const std::string& key, std::map<std::string, T>& value,
                Problems& problems);

/// A section: any struct with a visit().
template <typename T>
void read_value(const YamlNode& node, const std::string& key, T& value, Problems& problems) {
  if (node.is_null()) return;  // "eval:" with nothing below keeps the defaults
  if (!node.is_map()) return report_kind(node, key, "a section (keys with values)", problems);
  SectionReader reader(node, key, problems);
  T::visit(reader, value);
  reader.report_unknown_keys();
}

template <typename T>
void read_value(const YamlNode& node, const std::string& key, std::optional<T>& value,
                Problems& problems) {
  if (node.is_null()) return value.reset();
  T inner{};
  read_value(node, key, inner, problems);
  value = std::move(inner);
}

template <typename T>
void read_value(const YamlNode& node, const std::string& key, std::vector<T>& value,
                Problems& problems) {
  if (!node.is_list()) return report_kind(node, key, "a list", problems);
  value.assign(node.items.size(), T{});
  for (size_t i = 0; i < node.items.size(); ++i)
    read_value(node.items[i], join_key(key, std::to_string(i)), value[i], problems);
}

template <typename T>
void read_value(const YamlNode& node, const std::string& key, std::map<std::string, T>& value,
                Problems& problems) {
  if (!node.is_map()) return report_kind(node, key, "a section of named entries", problems);
  value.clear();
  for (const YamlEntry& entry : node.entries)
    read_value(entry.value, join_key(key, entry.key), value[entry.key], problems);
}

/// Collects the places of every key below `node`.
void collect_origins(const YamlNode& node, const std::string& key, Origins& origins);
/// The place of `key`, or of the nearest section around it that was given.
Position find_origin(const Origins& origins, std::string_view key);

}  // namespace lh
