#include "config/problems.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "base/error.h"

namespace lh {

std::string Position::text() const {
  const std::string name = source == nullptr ? "recipe" : *source;
  return line == 0 ? name : fmt::format("{}:{}:{}", name, line, column);
}

void Problems::add(const Position& position, std::string_view key, std::string_view message) {
  items_.push_back({position, std::string(key), std::string(message)});
  keys_.emplace(key);
}

void Problems::throw_if_any() const {
  if (items_.empty()) return;
  // Files keep the order in which they first gave trouble; within one, problems go by place.
  std::vector<std::string> sources;
  const auto rank = [&](const Item& item) {
    const std::string name = item.position.source == nullptr ? "" : *item.position.source;
    const auto found = std::find(sources.begin(), sources.end(), name);
    if (found != sources.end()) return found - sources.begin();
    sources.push_back(name);
    return static_cast<std::ptrdiff_t>(sources.size()) - 1;
  };
  std::vector<std::tuple<std::ptrdiff_t, int, int, size_t>> order;
  for (size_t i = 0; i < items_.size(); ++i)
    order.emplace_back(rank(items_[i]), items_[i].position.line, items_[i].position.column, i);
  std::sort(order.begin(), order.end());

  std::string lines;
  for (const auto& [source, line, column, index] : order) {
    const Item& item = items_[index];
    if (!lines.empty()) lines += '\n';
    lines += item.position.text() + ": ";
    if (!item.key.empty()) lines += item.key + ": ";
    lines += item.message;
  }
  throw ConfigError(lines);
}

std::string shown(std::string_view text) {
  constexpr size_t kLongest = 60;
  std::string out = "'";
  size_t used = 0;
  for (const char c : text) {
    // Cut only before a character, never inside its UTF-8 bytes.
    if (used++ >= kLongest && (static_cast<unsigned char>(c) & 0xC0) != 0x80) {
      out += "...";
      break;
    }
    if (c == '\n') {
      out += "\\n";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out + "'";
}

std::string join_key(std::string_view section, std::string_view name) {
  return section.empty() ? std::string(name) : fmt::format("{}.{}", section, name);
}

}  // namespace lh
