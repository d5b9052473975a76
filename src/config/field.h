// The vocabulary in which a config struct describes its own keys. Each struct has one static
// visit(visitor, self) that calls visitor.field(name, member, Doc, Rule) for every key; reading,
// dumping, explaining, range checks and the frozen schema all walk that single list.
#pragma once

#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace lh {

/// What `longhand recipe explain` prints about a key. `units` is empty for pure numbers and text.
struct Doc {
  const char* meaning;
  const char* units = "";
};

/// Which values a key may take; the default allows everything its type can hold.
struct Rule {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false;   // true: `low` itself is refused
  bool high_open = false;  // true: `high` itself is refused
  bool not_empty = false;  // text and lists only
  std::vector<std::string> choices = {};

  bool has_range() const { return std::isfinite(low) || std::isfinite(high); }
  bool in_range(double value) const {
    return (low_open ? value > low : value >= low) && (high_open ? value < high : value <= high);
  }
};

inline Rule positive() {
  return {.low = 0, .low_open = true};
}
inline Rule at_least(double low) {
  return {.low = low};
}
inline Rule between(double low, double high) {
  return {.low = low, .high = high};
}
/// low <= value < high, the range of a decay rate.
inline Rule below(double low, double high) {
  return {.low = low, .high = high, .high_open = true};
}
inline Rule one_of(std::vector<std::string> choices) {
  return {.choices = std::move(choices)};
}
inline Rule not_empty() {
  return {.not_empty = true};
}

}  // namespace lh
