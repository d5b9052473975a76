#include "launch/host_names.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "base/error.h"

namespace lh {
namespace {

constexpr int64_t kMost = 100000;  // hosts in one list: more is a typing error

int64_t number_in(std::string_view text, std::string_view whole) {
  int64_t value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < 0)
    fail<ConfigError>("'{}': expected a number, got '{}'", whole, text);
  return value;
}

/// Splits at commas outside brackets.
std::vector<std::string_view> pieces(std::string_view list) {
  std::vector<std::string_view> parts;
  size_t start = 0;
  int depth = 0;
  for (size_t i = 0; i <= list.size(); ++i) {
    if (i < list.size() && list[i] == '[') ++depth;
    if (i < list.size() && list[i] == ']') --depth;
    if (i < list.size() && (list[i] != ',' || depth > 0)) continue;
    parts.push_back(list.substr(start, i - start));
    start = i + 1;
  }
  return parts;
}

void expand(std::string_view pattern, std::string_view whole, std::vector<std::string>& hosts) {
  const size_t open = pattern.find('[');
  if (open == std::string_view::npos) {
    if (pattern.empty() || pattern.find(']') != std::string_view::npos)
      fail<ConfigError>("'{}' is not a list of hosts such as gpu[01-04,7],login", whole);
    hosts.emplace_back(pattern);
    return;
  }
  const size_t close = pattern.find(']', open);
  if (close == std::string_view::npos)
    fail<ConfigError>("'{}' is not a list of hosts: a bracket stays open", whole);
  const std::string head(pattern.substr(0, open));
  const std::string_view tail = pattern.substr(close + 1);
  for (const std::string_view range : pieces(pattern.substr(open + 1, close - open - 1))) {
    const size_t dash = range.find('-');
    const std::string_view first = range.substr(0, dash);
    const int64_t low = number_in(first, whole);
    const int64_t high =
        dash == std::string_view::npos ? low : number_in(range.substr(dash + 1), whole);
    if (high < low || high - low > kMost)
      fail<ConfigError>("'{}': the range '{}' does not count upwards", whole, range);
    for (int64_t i = low; i <= high; ++i) {
      const std::string name = head + fmt::format("{:0{}}", i, first.size());
      // Several brackets multiply: rack[1-2]node[1-4].
      for (const std::string& rest :
           tail.empty() ? std::vector<std::string>{""} : expand_host_list(tail))
        hosts.push_back(name + rest);
      if (hosts.size() > kMost) fail<ConfigError>("'{}' names too many hosts", whole);
    }
  }
}

bool digit(char c) {
  return std::isdigit(static_cast<unsigned char>(c)) != 0;
}

}  // namespace

std::vector<std::string> expand_host_list(std::string_view list) {
  std::vector<std::string> hosts;
  for (const std::string_view pattern : pieces(list)) expand(pattern, list, hosts);
  return hosts;
}

std::vector<int64_t> expand_counts(std::string_view counts) {
  std::vector<int64_t> result;
  for (const std::string_view piece : pieces(counts)) {
    const size_t open = piece.find("(x");
    int64_t times = 1;
    if (open != std::string_view::npos) {
      if (piece.back() != ')') fail<ConfigError>("'{}': expected counts such as 4(x2),3", counts);
      times = number_in(piece.substr(open + 2, piece.size() - open - 3), counts);
    }
    const int64_t count = number_in(piece.substr(0, open), counts);
    if (times > kMost || result.size() > kMost) fail<ConfigError>("'{}': too many nodes", counts);
    result.insert(result.end(), static_cast<size_t>(times), count);
  }
  return result;
}

bool natural_less(std::string_view a, std::string_view b) {
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (digit(a[i]) && digit(b[j])) {
      const auto run = [](std::string_view text, size_t& at) {
        while (at + 1 < text.size() && text[at] == '0' && digit(text[at + 1])) ++at;
        const size_t start = at;
        while (at < text.size() && digit(text[at])) ++at;
        return text.substr(start, at - start);
      };
      const std::string_view x = run(a, i), y = run(b, j);
      if (x.size() != y.size()) return x.size() < y.size();
      if (x != y) return x < y;
    } else {
      if (a[i] != b[j]) return a[i] < b[j];
      ++i;
      ++j;
    }
  }
  if (a.size() - i != b.size() - j) return a.size() - i < b.size() - j;
  return a < b;  // node01 and node1: any fixed order will do
}

}  // namespace lh
