// Fills a config struct from a YAML tree, collecting every problem: the visitor that
// Recipe::visit and its sections are read with.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/text.h"
#include "config/field.h"
#include "config/problems.h"
#include "config/yaml.h"

namespace lh {

/// Where each key that was given stands, for messages about it after reading.
using KeyPositions = std::map<std::string, Position>;

std::optional<int64_t> parse_integer(const std::string& text);  // 12, -3, 1e6; nullopt otherwise
std::optional<double> parse_number(const std::string& text);    // finite numbers only

/// "a number from 0 to 1", "one of a, b": what a rule allows, for messages and explanations.
std::string describe_rule(const Rule& rule);

template <typename T>
struct is_vector : std::false_type {};
template <typename T>
struct is_vector<std::vector<T>> : std::true_type {};
template <typename T>
struct is_named : std::false_type {};
template <typename T>
struct is_named<std::map<std::string, T>> : std::true_type {};
template <typename T>
struct is_optional : std::false_type {};
template <typename T>
struct is_optional<std::optional<T>> : std::true_type {};

class ConfigReader {
 public:
  ConfigReader(Problems& problems, KeyPositions& positions)
      : problems_(problems), positions_(positions) {}

  /// Reads the keys of `node` into `object`, which holds the defaults.
  template <typename Struct>
  void read_struct(const YamlNode& node, const std::string& key, Struct& object) {
    if (node.is_null()) return;
    if (!node.is_map()) {
      wrong(node, key, "a section of keys");
      return;
    }
    Fields fields{*this, node, key, {}};
    Struct::visit(fields, object);
    for (const YamlEntry& entry : node.entries) {
      if (std::find(fields.names.begin(), fields.names.end(), entry.key) != fields.names.end())
        continue;
      problems_.add(entry.position, join_key(key, entry.key),
                    "unknown key" + did_you_mean(entry.key, fields.names));
    }
  }

 private:
  struct Fields {
    ConfigReader& reader;
    const YamlNode& node;
    const std::string& section;
    std::vector<std::string> names;

    template <typename T>
    void field(const char* name, T& member, const Doc&, const Rule& rule) {
      names.emplace_back(name);
      if (const YamlEntry* entry = node.find(name)) {
        const std::string key = join_key(section, name);
        reader.positions_[key] = entry->position;
        reader.read(entry->value, key, member, rule);
      }
    }
  };

  template <typename T>
  void read(const YamlNode& node, const std::string& key, T& value, const Rule& rule) {
    if constexpr (is_optional<T>::value) {
      if (node.is_null()) {
        value.reset();
        return;
      }
      typename T::value_type inner{};
      read(node, key, inner, rule);
      value = inner;
    } else if constexpr (is_vector<T>::value) {
      if (!node.is_list()) return wrong(node, key, "a list");
      value.clear();
      for (size_t i = 0; i < node.items.size(); ++i) {
        typename T::value_type item{};
        const std::string item_key = fmt::format("{}.{}", key, i);
        positions_[item_key] = node.items[i].position;
        Rule item_rule = rule;
        item_rule.not_empty = false;
        read(node.items[i], item_key, item, item_rule);
        value.push_back(std::move(item));
      }
      if (rule.not_empty && value.empty()) wrong(node, key, "a list with at least one item");
    } else if constexpr (is_named<T>::value) {
      if (!node.is_map()) return wrong(node, key, "a section of named entries");
      value.clear();
      for (const YamlEntry& entry : node.entries) {
        const std::string entry_key = join_key(key, entry.key);
        positions_[entry_key] = entry.position;
        read(entry.value, entry_key, value[entry.key], Rule{});
      }
      if (rule.not_empty && value.empty()) wrong(node, key, "at least one named entry");
    } else if constexpr (std::is_same_v<T, bool>) {
      if (node.is_scalar() && !node.quoted && (node.text == "true" || node.text == "false"))
        value = node.text == "true";
      else wrong(node, key, "true or false");
    } else if constexpr (std::is_same_v<T, int64_t>) {
      const auto number =
          node.is_scalar() && !node.quoted ? parse_integer(node.text) : std::nullopt;
      if (!number) return wrong(node, key, "an integer");
      if (!rule.in_range(static_cast<double>(*number)))
        return wrong(node, key, "an integer " + describe_rule(rule));
      value = *number;
    } else if constexpr (std::is_same_v<T, double>) {
      const auto number = node.is_scalar() && !node.quoted ? parse_number(node.text) : std::nullopt;
      if (!number) return wrong(node, key, "a number");
      if (!rule.in_range(*number)) return wrong(node, key, "a number " + describe_rule(rule));
      value = *number;
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (!node.is_scalar()) return wrong(node, key, "text");
      if (rule.not_empty && node.text.empty()) return wrong(node, key, "text that is not empty");
      if (!rule.choices.empty() &&
          std::find(rule.choices.begin(), rule.choices.end(), node.text) == rule.choices.end()) {
        problems_.add(node.position, key,
                      fmt::format("expected one of {}, got {}{}", fmt::join(rule.choices, ", "),
                                  node.description(), did_you_mean(node.text, rule.choices)));
        return;
      }
      value = node.text;
    } else {
      read_struct(node, key, value);
    }
  }

  void wrong(const YamlNode& node, const std::string& key, const std::string& expected) {
    problems_.add(node.position, key,
                  fmt::format("expected {}, got {}", expected, node.description()));
  }

  Problems& problems_;
  KeyPositions& positions_;
};

}  // namespace lh
