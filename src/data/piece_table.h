// The documents of several shards cut into pieces of at most seq_tokens tokens, in order.
// Eight bytes of memory per piece.
//
// What a model sees of a document of n stored tokens t[0..n-1] (the last is end_of_text) is n
// (input, target) pairs: (end_of_text, t[0]), (t[0], t[1]), ... So every stored token is a target
// exactly once, the first one too: a generator starts from end_of_text, and the sum of all losses
// is the code length of whole documents.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "data/token_shard.h"

namespace lh {

/// A run of pairs of one document. `begin` counts targets over all shards.
struct Slice {
  int64_t begin;
  int64_t tokens;
  bool starts_document;  // its first input is end_of_text, else the token before `begin`

  bool operator==(const Slice&) const = default;
};

class PieceTable {
 public:
  /// Shards must share one tokenizer. ConfigError when there is none or seq_tokens < 1.
  PieceTable(std::vector<std::shared_ptr<const TokenShard>> shards, int64_t seq_tokens);

  int64_t pieces() const { return static_cast<int64_t>(starts_.size()) - 1; }
  int64_t tokens() const { return starts_.back() >> 1; }
  int64_t text_bytes() const { return text_bytes_; }
  Slice piece(int64_t index) const;
  int64_t piece_tokens(int64_t index) const {
    return (starts_[index + 1] >> 1) - (starts_[index] >> 1);
  }

  /// Writes the slice's pairs. Spans of slice.tokens. IoError as TokenShard::read_tokens.
  void read(const Slice& slice, std::span<TokenId> inputs, std::span<TokenId> targets) const;

  std::span<const std::shared_ptr<const TokenShard>> shards() const { return shards_; }

 private:
  std::vector<std::shared_ptr<const TokenShard>> shards_;
  std::vector<int64_t> shard_begins_;  // first token of each shard
  std::vector<int64_t> starts_;        // 2 * first token + starts_document; then 2 * tokens
  int64_t text_bytes_ = 0;
};

}  // namespace lh
