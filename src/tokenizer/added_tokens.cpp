#include "tokenizer/added_tokens.h"

#include <utility>

#include "tokenizer/utf8.h"

namespace lh {
namespace {

/// Property White_Space.
bool is_space(uint32_t c) {
  return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

size_t skip_spaces_right(std::string_view text, size_t at) {
  while (at < text.size()) {
    const CodePoint front = front_code_point(text.substr(at));
    if (!is_space(front.value)) break;
    at += front.bytes;
  }
  return at;
}

size_t skip_spaces_left(std::string_view text, size_t at, size_t limit) {
  while (at > limit) {
    size_t start = at - 1;
    while (start > limit && (static_cast<uint8_t>(text[start]) & 0xC0) == 0x80) --start;
    if (!is_space(front_code_point(text.substr(start)).value)) break;
    at = start;
  }
  return at;
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  nodes_.emplace_back();
  for (size_t i = 0; i < tokens_.size(); ++i) {
    int32_t node = 0;
    for (const char c : tokens_[i].content) {
      const auto byte = static_cast<uint8_t>(c);
      int32_t to = child(node, byte);
      if (to < 0) {
        to = static_cast<int32_t>(nodes_.size());
        nodes_[static_cast<size_t>(node)].children.emplace_back(byte, to);
        nodes_.emplace_back();
      }
      node = to;
    }
    nodes_[static_cast<size_t>(node)].token = static_cast<int32_t>(i);
    starts_[static_cast<uint8_t>(tokens_[i].content[0])] = true;
  }
}

int32_t AddedTokenFinder::child(int32_t node, uint8_t byte) const {
  for (const auto& [label, to] : nodes_[static_cast<size_t>(node)].children)
    if (label == byte) return to;
  return -1;
}

int32_t AddedTokenFinder::longest_at(std::string_view text) const {
  int32_t node = 0;
  int32_t longest = -1;
  for (const char c : text) {
    node = child(node, static_cast<uint8_t>(c));
    if (node < 0) break;
    if (nodes_[static_cast<size_t>(node)].token >= 0)
      longest = nodes_[static_cast<size_t>(node)].token;
  }
  return longest;
}

std::optional<AddedTokenFinder::Match> AddedTokenFinder::find(std::string_view text,
                                                              size_t from) const {
  if (tokens_.empty()) return std::nullopt;
  for (size_t at = from; at < text.size(); ++at) {
    if (!starts_[static_cast<uint8_t>(text[at])]) continue;
    const int32_t index = longest_at(text.substr(at));
    if (index < 0) continue;
    const AddedToken& token = tokens_[static_cast<size_t>(index)];
    const size_t end = at + token.content.size();
    return Match{token.strip_left ? skip_spaces_left(text, at, from) : at,
                 token.strip_right ? skip_spaces_right(text, end) : end, token.id};
  }
  return std::nullopt;
}

}  // namespace lh
