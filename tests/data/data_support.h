// Small tokenizers, temporary folders and shards for the tests of data/.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "data/token_shard_writer.h"
#include "support/folder.h"

namespace lh::test {

inline std::string get(const std::filesystem::path& path) {
  std::ostringstream content;
  content << std::ifstream(path, std::ios::binary).rdbuf();
  return content.str();
}

/// Documents of the given lengths (tokens with the end_of_text), with ids that name their place:
/// token i of the shard is i, so that every token of a test is unique. Vocabulary 100,000.
class CountingTokenizer : public Tokenizer {
 public:
  explicit CountingTokenizer(int64_t vocab = 100'000) : vocab_(vocab) {}
  int64_t vocab_size() const override { return vocab_; }
  void encode(std::string_view text, std::vector<TokenId>& out) const override {
    for (const char c : text) out.push_back(static_cast<unsigned char>(c));
  }
  void encode_with_special(std::string_view text, std::vector<TokenId>& out) const override {
    encode(text, out);
  }
  std::string decode(std::span<const TokenId> ids) const override {
    return std::string(ids.size(), '?');
  }
  std::optional<TokenId> end_of_text() const override { return static_cast<TokenId>(vocab_ - 1); }
  std::optional<TokenId> token_to_id(std::string_view) const override { return std::nullopt; }
  std::string save_json() const override { return fmt::format("{{\"counting\": {}}}", vocab_); }

 private:
  int64_t vocab_;
};

/// A shard whose document d has lengths[d] tokens, the last of them end_of_text, and 3 * d + 1
/// bytes; other tokens are their own position in the shard plus `base`.
inline std::shared_ptr<const TokenShard> counting_shard(const std::filesystem::path& path,
                                                        const std::vector<int64_t>& lengths,
                                                        TokenId base = 0, int64_t vocab = 100'000) {
  TokenShardWriter writer(path, CountingTokenizer(vocab));
  for (size_t d = 0; d < lengths.size(); ++d) {
    for (int64_t i = 0; i + 1 < lengths[d]; ++i) {
      const TokenId id = base + static_cast<TokenId>(writer.tokens());
      writer.append(std::span(&id, 1));
    }
    writer.end_document(static_cast<int64_t>(3 * d + 1));
  }
  writer.finish({{"made up", 10, "0123"}});
  return TokenShard::open(path);
}

}  // namespace lh::test
