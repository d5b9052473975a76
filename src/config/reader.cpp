#include "config/reader.h"

#include <limits>

namespace lh {

std::optional<double> parse_number(const std::string& text) {
  double value = 0;
  const char* begin = text.c_str();
  const char* end = begin + text.size();
  if (begin != end && *begin == '+') ++begin;
  const auto [rest, error] = std::from_chars(begin, end, value);
  if (error != std::errc() || rest != end || !std::isfinite(value)) return std::nullopt;
  return value;
}

std::optional<int64_t> parse_integer(const std::string& text) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error == std::errc() && rest == end) return value;
  if (error == std::errc::result_out_of_range) return std::nullopt;
  // 1e6 and 2.5e3 are integers too, as long as a double holds them exactly.
  const auto number = parse_number(text);
  if (!number || *number != std::floor(*number) || std::abs(*number) > 0x1p53) return std::nullopt;
  return static_cast<int64_t>(*number);
}

std::string describe_rule(const Rule& rule) {
  if (!rule.choices.empty()) return fmt::format("one of {}", fmt::join(rule.choices, ", "));
  const bool low = std::isfinite(rule.low), high = std::isfinite(rule.high);
  std::string text;
  if (low) text = fmt::format("{} {}", rule.low_open ? "above" : "of at least", rule.low);
  if (high)
    text += fmt::format("{}{} {}", low ? " and " : "", rule.high_open ? "below" : "at most",
                        rule.high);
  if (rule.not_empty) text += text.empty() ? "not empty" : ", not empty";
  return text;
}

}  // namespace lh
