// Checks the Rule of every field of a filled struct; the visitor behind validate_recipe().
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "config/field.h"
#include "config/load.h"
#include "config/problems.h"

namespace lh {

/// "at least 0", "above 0 and below 1", "one of a, b"; empty when everything is allowed.
std::string describe_rule(const Rule& rule);

/// visit() visitor; one instance walks a whole struct, nested sections included.
class RuleChecker {
 public:
  explicit RuleChecker(std::vector<RecipeProblem>& problems) : problems_(problems) {}

  template <typename T>
  void field(const char* name, T& member, const Doc&, const Rule& rule) {
    const std::string outer = key_;
    key_ = join_key(key_, name);
    check(member, rule);
    key_ = outer;
  }

 private:
  void check(const bool&, const Rule&) {}
  void check(const int64_t& value, const Rule& rule);
  void check(const double& value, const Rule& rule);
  void check(const std::string& value, const Rule& rule);
  template <typename T>
  void check(const std::optional<T>& value, const Rule& rule) {
    if (value.has_value()) check(*value, rule);
  }
  template <typename T>
  void check(const std::vector<T>& list, const Rule& rule) {
    if (rule.not_empty && list.empty()) add("expected at least one entry, got none");
    // The rule of a list holds for each of its numbers or words.
    Rule each = rule;
    each.not_empty = false;
    for (size_t i = 0; i < list.size(); ++i) nested(std::to_string(i), list[i], each);
  }
  template <typename T>
  void check(const std::map<std::string, T>& map, const Rule& rule) {
    if (rule.not_empty && map.empty()) add("expected at least one entry, got none");
    for (const auto& [name, value] : map) nested(name, value, Rule{});
  }
  template <typename T>
  void check(const T& section, const Rule&) {
    T::visit(*this, section);
  }
  template <typename T>
  void nested(const std::string& name, const T& value, const Rule& rule) {
    const std::string outer = key_;
    key_ = join_key(key_, name);
    check(value, rule);
    key_ = outer;
  }
  void add(std::string message) { problems_.push_back({{key_}, std::move(message)}); }

  std::vector<RecipeProblem>& problems_;
  std::string key_;
};

}  // namespace lh
