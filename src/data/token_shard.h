// Token shards: documents as token ids in one HDF5 file, readable by any HDF5 tool.
//
//   tokens            uint16 (vocabulary up to 65,536) or uint32 [tokens], contiguous
//   document_offsets  int64 [documents + 1]: document d is tokens[offsets[d] .. offsets[d + 1])
//   document_bytes    int64 [documents]: UTF-8 bytes of each document's text
//   tokenizer_json    string: the whole tokenizer
//   sources           string: JSON list of {name, bytes, digest} of the files it was made from
//   attributes of /   format_version, vocab_size, end_of_text, text_bytes, tokenizer_digest,
//                     content_digest
//
// Every document ends with the end_of_text token and none is empty. The arrays are contiguous, so
// HDF5 is needed only to open the file: tokens are then read by position, without its lock.
// The first 512 bytes are the seal of shard_seal.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace lh {

/// A file that text was read from. Bytes and digest are of the text after decompression.
struct SourceFile {
  std::string name;  // without its folder
  int64_t bytes = 0;
  std::string digest;

  bool operator==(const SourceFile&) const = default;
};

struct ShardInfo {
  int64_t vocab_size = 0;
  TokenId end_of_text = 0;
  int64_t documents = 0;
  int64_t tokens = 0;       // with one end_of_text per document
  int64_t text_bytes = 0;   // sum of document_bytes
  int64_t token_width = 0;  // bytes per stored token: 2 or 4
  std::string tokenizer_digest;
  std::string content_digest;  // of tokens, documents and tokenizer: equal shards have equal ones
  std::vector<SourceFile> sources;
};

/// An open shard. Const methods are safe to call from several threads at once.
class TokenShard {
 public:
  /// Checks everything but the tokens themselves: digests, types, shapes, order of offsets.
  /// IoError names the file, what was expected and what to do.
  static std::shared_ptr<const TokenShard> open(const std::filesystem::path& path);
  ~TokenShard();

  const std::filesystem::path& path() const;
  const ShardInfo& info() const;
  const std::string& tokenizer_json() const;

  std::vector<int64_t> document_offsets() const;  // [documents + 1], read from the file
  std::vector<int64_t> document_bytes() const;    // [documents]

  /// Reads tokens [begin, begin + out.size()). IoError for a token outside the vocabulary.
  void read_tokens(int64_t begin, std::span<TokenId> out) const;

  /// Reads every token and checks the digest and the vocabulary. IoError when damaged.
  void verify() const;

 private:
  struct State;
  explicit TokenShard(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
};

/// Opens all shards that the paths and globs name, sorted within each glob. ConfigError when a
/// pattern matches nothing; IoError when tokenizers differ between shards.
std::vector<std::shared_ptr<const TokenShard>> open_shards(std::span<const std::string> patterns);

}  // namespace lh
