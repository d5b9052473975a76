// Writes one token shard as a stream of documents. Tokens are spooled to unnamed files beside the
// target, so memory does not grow with the shard; the file appears, complete and synced, in finish.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "data/token_shard.h"

namespace lh {

class TokenShardWriter {
 public:
  /// IoError when the folder can't be written. ConfigError when the tokenizer has no end_of_text.
  TokenShardWriter(std::filesystem::path path, const Tokenizer& tokenizer);
  ~TokenShardWriter();  // without finish, nothing is left behind

  /// Adds tokens to the current document. LH_CHECKs that ids are inside the vocabulary.
  void append(std::span<const TokenId> tokens);

  /// Ends the current document with the end_of_text token. `text_bytes`: of its text.
  void end_document(int64_t text_bytes);

  int64_t documents() const;
  int64_t tokens() const;

  /// Writes the file. ConfigError when no document was added; IoError when the disk is full.
  ShardInfo finish(std::vector<SourceFile> sources);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lh
