// Tokens that stand outside BPE (special tokens, tool tags, ...): finding their text in a text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lh {

struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool special = false;
  bool normalized = true;   // sought after normalisation, else before it
  bool strip_left = false;  // takes the white space to its left with it
  bool strip_right = false;
};

/// Finds the leftmost, then longest of a set of strings.
class AddedTokenFinder {
 public:
  explicit AddedTokenFinder(std::vector<AddedToken> tokens);

  struct Match {
    size_t begin;
    size_t end;
    int32_t id;
  };
  /// The first match in well-formed text at or after `from`, white space that it strips included.
  std::optional<Match> find(std::string_view text, size_t from) const;

  bool empty() const { return tokens_.empty(); }

 private:
  struct Node {
    int32_t token = -1;  // index of the token that ends here
    std::vector<std::pair<uint8_t, int32_t>> children;
  };
  int32_t child(int32_t node, uint8_t byte) const;
  int32_t longest_at(std::string_view text) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  bool starts_[256] = {};
};

}  // namespace lh
