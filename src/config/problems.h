// Where something stands in a recipe, and the collected list of what is wrong with it.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace lh {

/// A place in a file or in a command-line override. Lines and columns start at 1; line 0 means
/// the source as a whole. Columns count characters, not bytes.
struct Position {
  std::shared_ptr<const std::string> source;
  int line = 0;
  int column = 0;

  std::string text() const;  // "file:line:column"
};

/// Problems in the order found; all of them become one ConfigError.
class Problems {
 public:
  /// `key` may be empty (the problem concerns the text, not a key).
  void add(const Position& position, std::string_view key, std::string_view message);
  bool empty() const { return items_.empty(); }
  /// True if a problem was recorded about this very key.
  bool concerns(std::string_view key) const { return keys_.contains(key); }
  /// Throws ConfigError with one line per problem, sorted by place; returns if there is none.
  void throw_if_any() const;

 private:
  struct Item {
    Position position;
    std::string key;
    std::string message;
  };
  std::vector<Item> items_;
  std::set<std::string, std::less<>> keys_;
};

/// Text from a recipe made fit for a message: quoted, control bytes escaped, cut when long.
std::string shown(std::string_view text);

/// "section.key", or "key" when the section is empty.
std::string join_key(std::string_view section, std::string_view name);

}  // namespace lh
