#include "tokenizer/tokenizer.h"

#include <utility>

#include "base/file.h"
#include "base/hash.h"
#include "tokenizer/utf8.h"

namespace lh {

Tokenizer::~Tokenizer() = default;

std::string Tokenizer::digest() const {
  return digest_of(save_json());
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& tokenizer_json) {
  return parse_tokenizer(read_file(tokenizer_json), tokenizer_json.string());
}

std::string StreamDecoder::push(TokenId id) {
  held_ += tokenizer_.decode(std::span(&id, 1));
  const size_t keep = incomplete_utf8_suffix(held_);
  std::string ready = held_.substr(0, held_.size() - keep);
  held_.erase(0, ready.size());
  return ready;
}

std::string StreamDecoder::finish() {
  return std::exchange(held_, {});
}

}  // namespace lh
