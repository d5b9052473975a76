#include "config/number.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <system_error>

#include "config/problems.h"

namespace lh {
namespace {

/// A decimal literal taken apart: (-1)^negative * digits * 10^exponent.
struct Decimal {
  bool negative = false;
  std::string digits;  // without leading zeros; empty means zero
  int64_t exponent = 0;
};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool parse_decimal(std::string_view text, Decimal& out) {
  size_t i = 0;
  if (i < text.size() && (text[i] == '-' || text[i] == '+')) out.negative = text[i++] == '-';
  bool any = false;
  bool fraction = false;
  for (; i < text.size(); ++i) {
    if (is_digit(text[i])) {
      any = true;
      if (!out.digits.empty() || text[i] != '0') out.digits += text[i];
      out.exponent -= fraction;
    } else if (text[i] == '.' && !fraction) {
      fraction = true;
    } else {
      break;
    }
  }
  if (!any) return false;
  if (i == text.size()) return true;
  if (text[i] != 'e' && text[i] != 'E') return false;
  std::string_view power = text.substr(i + 1);
  if (power.starts_with('+')) power.remove_prefix(1);
  if (power.empty() || !is_digit(power.back()) || power.size() > 6) return false;
  int64_t shift = 0;
  const auto [end, error] = std::from_chars(power.data(), power.data() + power.size(), shift);
  out.exponent += shift;
  return error == std::errc() && end == power.data() + power.size();
}

/// A word about the usual ways to write a number that recipes do not take.
std::string hint(std::string_view text) {
  if (text.find('_') != std::string_view::npos) return "; write it without '_'";
  if (text.find(',') != std::string_view::npos) return "; write it without ','";
  if (text.starts_with("0x") || text.starts_with("0X")) return "; write it in decimal";
  if (text.size() > 1 && is_digit(text[0]) && std::string_view("kKmMgGbBtT").find(text.back()) !=
                                                  std::string_view::npos)
    return "; write 1e3, 1e6 or 1e9 for thousand, million or billion";
  return "";
}

}  // namespace

bool parse_integer(std::string_view text, int64_t& value, std::string& why) {
  Decimal decimal;
  if (!parse_decimal(text, decimal)) {
    why = fmt::format("expected an integer, got {}{}", shown(text), hint(text));
    return false;
  }
  std::string& digits = decimal.digits;
  if (digits.empty()) {
    value = 0;
    return true;
  }
  while (decimal.exponent < 0 && !digits.empty() && digits.back() == '0') {
    digits.pop_back();
    ++decimal.exponent;
  }
  if (decimal.exponent < 0) {
    why = fmt::format("expected an integer, got the fraction {}", shown(text));
    return false;
  }
  const size_t length = digits.size() + static_cast<size_t>(decimal.exponent);
  if (length <= 19) {
    digits.append(static_cast<size_t>(decimal.exponent), '0');
    if (decimal.negative) digits.insert(0, 1, '-');
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error == std::errc()) return true;
  }
  why = fmt::format("expected an integer of at most 19 digits, got {}", shown(text));
  return false;
}

bool parse_real(std::string_view text, double& value, std::string& why) {
  Decimal decimal;
  if (!parse_decimal(text, decimal)) {
    std::string lower(text);
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const bool special = lower.find("nan") != std::string::npos ||
                         lower.find("inf") != std::string::npos;
    why = fmt::format("expected a {}number, got {}{}", special ? "finite " : "", shown(text),
                      hint(text));
    return false;
  }
  if (text.starts_with('+')) text.remove_prefix(1);
  double parsed = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), parsed);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(parsed)) {
    why = fmt::format("expected a number between 1e-307 and 1e308 in size, got {}", shown(text));
    return false;
  }
  value = parsed == 0 ? 0.0 : parsed;  // -0 and 0 are one setting
  return true;
}

std::string format_real(double value) { return fmt::format("{}", value); }

}  // namespace lh
