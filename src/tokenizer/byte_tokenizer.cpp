// The tokenizer without a vocabulary file: one id per byte, and one id that ends a document.
#include <algorithm>

#include "base/error.h"
#include "tokenizer/tokenizer.h"

namespace lh {
namespace {

constexpr TokenId kEndOfText = 256;
constexpr std::string_view kEndOfTextName = "<|endoftext|>";
constexpr std::string_view kJson = R"({
 "added_tokens": [
  {
   "content": "<|endoftext|>",
   "id": 256,
   "special": true
  }
 ],
 "model": {
  "type": "Bytes"
 },
 "version": "1.0"
}
)";

class ByteTokenizer final : public Tokenizer {
 public:
  int64_t vocab_size() const override { return kEndOfText + 1; }

  void encode(std::string_view text, std::vector<TokenId>& out) const override {
    const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
    out.insert(out.end(), bytes, bytes + text.size());
  }

  void encode_with_special(std::string_view text, std::vector<TokenId>& out) const override {
    for (size_t at = text.find(kEndOfTextName); at != text.npos; at = text.find(kEndOfTextName)) {
      encode(text.substr(0, at), out);
      out.push_back(kEndOfText);
      text.remove_prefix(at + kEndOfTextName.size());
    }
    encode(text, out);
  }

  std::string decode(std::span<const TokenId> ids) const override {
    std::string bytes;
    bytes.reserve(ids.size());
    for (const TokenId id : ids) {
      if (id == kEndOfText) {
        bytes += kEndOfTextName;
      } else {
        if (id < 0 || id > kEndOfText)
          fail<Error>("[tokenizer] id {} is outside the byte vocabulary of {}", id, vocab_size());
        bytes.push_back(static_cast<char>(id));
      }
    }
    return bytes;
  }

  std::optional<TokenId> end_of_text() const override { return kEndOfText; }

  std::optional<TokenId> token_to_id(std::string_view token) const override {
    if (token == kEndOfTextName) return kEndOfText;
    if (token.size() == 1) return static_cast<uint8_t>(token[0]);
    return std::nullopt;
  }

  std::string save_json() const override { return std::string(kJson); }
};

}  // namespace

std::unique_ptr<Tokenizer> make_byte_tokenizer() {
  return std::make_unique<ByteTokenizer>();
}

}  // namespace lh
