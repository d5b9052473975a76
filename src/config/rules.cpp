#include "config/rules.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "config/number.h"

namespace lh {

std::string describe_rule(const Rule& rule) {
  if (!rule.choices.empty()) return fmt::format("one of {}", fmt::join(rule.choices, ", "));
  if (rule.not_empty) return "not empty";
  std::string low;
  std::string high;
  if (std::isfinite(rule.low))
    low = fmt::format("{} {}", rule.low_open ? "above" : "at least", format_real(rule.low));
  if (std::isfinite(rule.high))
    high = fmt::format("{} {}", rule.high_open ? "below" : "at most", format_real(rule.high));
  return low.empty() || high.empty() ? low + high : low + " and " + high;
}

void RuleChecker::check(const int64_t& value, const Rule& rule) {
  if (!rule.in_range(static_cast<double>(value)))
    add(fmt::format("expected {}, got {}", describe_rule(rule), value));
}

void RuleChecker::check(const double& value, const Rule& rule) {
  // A struct filled by code, unlike a parsed one, can hold a NaN.
  if (!std::isfinite(value))
    add(fmt::format("expected a finite number, got {}", value));
  else if (!rule.in_range(value))
    add(fmt::format("expected {}, got {}", describe_rule(rule), format_real(value)));
}

void RuleChecker::check(const std::string& value, const Rule& rule) {
  if (rule.not_empty && value.empty()) add("expected text, got none");
  if (rule.choices.empty()) return;
  if (std::find(rule.choices.begin(), rule.choices.end(), value) == rule.choices.end())
    add(fmt::format("expected {}, got {}{}", describe_rule(rule), shown(value),
                    did_you_mean(value, rule.choices)));
}

}  // namespace lh
