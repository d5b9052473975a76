// The tokenizer of data that is no text: ids are whole numbers, written with a blank behind each.
#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "tokenizer/tokenizer.h"

namespace lh {
namespace {

constexpr std::string_view kEndOfTextName = "<|endoftext|>";
constexpr std::string_view kBlanks = " \t\r\n";

class IntegerTokenizer final : public Tokenizer {
 public:
  explicit IntegerTokenizer(int64_t size) : end_(static_cast<TokenId>(size - 1)) {}

  int64_t vocab_size() const override { return int64_t{end_} + 1; }

  void encode(std::string_view text, std::vector<TokenId>& out) const override {
    encode_words(text, false, out);
  }

  void encode_with_special(std::string_view text, std::vector<TokenId>& out) const override {
    encode_words(text, true, out);
  }

  std::string decode(std::span<const TokenId> ids) const override {
    std::string text;
    for (const TokenId id : ids) {
      if (id < 0 || id > end_)
        fail<Error>("[tokenizer] id {} is outside the integer vocabulary of {}", id, vocab_size());
      text += id == end_ ? fmt::format("{} ", kEndOfTextName) : fmt::format("{} ", id);
    }
    return text;
  }

  std::optional<TokenId> end_of_text() const override { return end_; }

  std::optional<TokenId> token_to_id(std::string_view token) const override {
    if (token == kEndOfTextName) return end_;
    TokenId id = 0;
    const auto [rest, error] = std::from_chars(token.data(), token.data() + token.size(), id);
    if (error != std::errc() || rest != token.data() + token.size() || id < 0 || id >= end_)
      return std::nullopt;
    return id;
  }

  std::string save_json() const override {
    return fmt::format(R"({{
 "added_tokens": [
  {{
   "content": "{}",
   "id": {},
   "special": true
  }}
 ],
 "model": {{
  "size": {},
  "type": "Integers"
 }},
 "version": "1.0"
}}
)",
                       kEndOfTextName, end_, vocab_size());
  }

 private:
  void encode_words(std::string_view text, bool with_special, std::vector<TokenId>& out) const {
    for (size_t at = text.find_first_not_of(kBlanks); at != text.npos;
         at = text.find_first_not_of(kBlanks, at)) {
      const size_t end = std::min(text.find_first_of(kBlanks, at), text.size());
      const std::string_view word = text.substr(at, end - at);
      const auto id = token_to_id(word);
      if (!id || (*id == end_ && !with_special))
        fail<ConfigError>(
            "[tokenizer] expected whole numbers from 0 to {} with blanks between them, got '{}'",
            end_ - 1, word.substr(0, 40));
      out.push_back(*id);
      at = end;
    }
  }

  TokenId end_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_integer_tokenizer(int64_t size) {
  LH_CHECK(size >= 2 && size <= int64_t{1} << 30, "[tokenizer] {} integers, expected 2 to 2^30",
           size);
  return std::make_unique<IntegerTokenizer>(size);
}

}  // namespace lh
