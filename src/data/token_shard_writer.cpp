#include "data/token_shard_writer.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "storage/raw_file.h"
#include "data/shard_hdf5.h"
#include "data/shard_seal.h"

namespace lh {
namespace fs = std::filesystem;

namespace {

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

/// A growing array on disk, with the digest of its bytes.
template <typename T>
class Spool {
 public:
  explicit Spool(const fs::path& folder) : file_(RawFile::temporary_in(folder)) {
    buffer_.reserve(kBufferItems);
  }

  void push(T value) {
    buffer_.push_back(value);
    if (buffer_.size() == kBufferItems) flush();
  }

  void copy_to(RawFile& target, int64_t position) {
    flush();
    buffer_.resize(kBufferItems);
    for (int64_t done = 0; done < bytes_;) {
      const int64_t count =
          std::min<int64_t>(bytes_ - done, static_cast<int64_t>(kBufferItems * sizeof(T)));
      file_.read_at(done, buffer_.data(), count);
      target.write_at(position + done, buffer_.data(), count);
      done += count;
    }
    buffer_.clear();
  }

  std::string digest() {
    flush();
    return digest_.hex();
  }

 private:
  static constexpr size_t kBufferItems = (size_t{1} << 18) / sizeof(T);

  void flush() {
    const int64_t bytes = static_cast<int64_t>(buffer_.size() * sizeof(T));
    file_.write_at(bytes_, buffer_.data(), bytes);
    digest_.update(buffer_.data(), static_cast<size_t>(bytes));
    bytes_ += bytes;
    buffer_.clear();
  }

  RawFile file_;
  std::vector<T> buffer_;
  int64_t bytes_ = 0;
  Digest digest_;
};

}  // namespace

struct TokenShardWriter::State {
  State(fs::path shard_path, const Tokenizer& tokenizer)
      : path(std::move(shard_path)),
        tokenizer_json(tokenizer.save_json()),
        narrow(folder_of(path)),
        wide(folder_of(path)),
        offsets(folder_of(path)),
        bytes(folder_of(path)) {
    const auto end_of_text = tokenizer.end_of_text();
    if (!end_of_text)
      fail<ConfigError>(
          "the tokenizer names no end-of-text token, so documents could not be told apart; add "
          "one (e.g. \"<|endoftext|>\") to its added_tokens as special");
    info.vocab_size = tokenizer.vocab_size();
    info.end_of_text = *end_of_text;
    info.token_width = info.vocab_size <= 65536 ? 2 : 4;
    info.tokenizer_digest = digest_of(tokenizer_json);
    offsets.push(0);
  }

  void push(TokenId id) {
    LH_CHECK(id >= 0 && id < info.vocab_size, "[shard] token {} outside the vocabulary of {}", id,
             info.vocab_size);
    if (info.token_width == 2)
      narrow.push(static_cast<uint16_t>(id));
    else
      wide.push(static_cast<uint32_t>(id));
    ++info.tokens;
  }

  std::string tokens_digest() { return info.token_width == 2 ? narrow.digest() : wide.digest(); }

  fs::path path;
  std::string tokenizer_json;
  ShardInfo info;
  Spool<uint16_t> narrow;  // one of the two holds the tokens
  Spool<uint32_t> wide;
  Spool<int64_t> offsets;
  Spool<int64_t> bytes;
};

TokenShardWriter::TokenShardWriter(fs::path path, const Tokenizer& tokenizer)
    : state_(std::make_unique<State>(std::move(path), tokenizer)) {}
TokenShardWriter::~TokenShardWriter() = default;

void TokenShardWriter::append(std::span<const TokenId> tokens) {
  for (const TokenId id : tokens) state_->push(id);
}

void TokenShardWriter::end_document(int64_t text_bytes) {
  LH_CHECK(text_bytes >= 0, "[shard] document of {} bytes", text_bytes);
  state_->push(state_->info.end_of_text);
  state_->offsets.push(state_->info.tokens);
  state_->bytes.push(text_bytes);
  state_->info.text_bytes += text_bytes;
  ++state_->info.documents;
}

int64_t TokenShardWriter::documents() const {
  return state_->info.documents;
}
int64_t TokenShardWriter::tokens() const {
  return state_->info.tokens;
}

ShardInfo TokenShardWriter::finish(std::vector<SourceFile> sources) {
  State& s = *state_;
  if (s.info.documents == 0)
    fail<ConfigError>("{} would hold no document: the input has no text for it", s.path.string());
  s.info.sources = std::move(sources);
  s.info.content_digest = digest_of(fmt::format(
      "tokens {} offsets {} bytes {} tokenizer {} end {}", s.tokens_digest(), s.offsets.digest(),
      s.bytes.digest(), s.info.tokenizer_digest, s.info.end_of_text));
  try {
    write_atomically(s.path, [&](const fs::path& temporary) {
      const ShardLayout layout = create_shard_structure(temporary, s.info, s.tokenizer_json);
      RawFile file = RawFile::open_write(temporary);
      s.offsets.copy_to(file, layout.offsets_begin);
      s.bytes.copy_to(file, layout.bytes_begin);
      if (s.info.token_width == 2)
        s.narrow.copy_to(file, layout.tokens_begin);
      else
        s.wide.copy_to(file, layout.tokens_begin);
      ShardSeal seal;
      seal.tokens_begin = layout.tokens_begin;
      seal.tokens_bytes = s.info.tokens * s.info.token_width;
      write_seal(temporary, seal);
    });
  } catch (const IoError& error) {
    fail<IoError>("token shard {} not written: {}", s.path.string(), error.what());
  }
  return s.info;
}

}  // namespace lh
