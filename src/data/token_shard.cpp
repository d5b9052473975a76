#include "data/token_shard.h"

#include <algorithm>

#include "base/error.h"
#include "data/find_files.h"
#include "storage/raw_file.h"
#include "data/shard_hdf5.h"
#include "data/shard_seal.h"

namespace lh {
namespace fs = std::filesystem;

struct TokenShard::State {
  explicit State(const fs::path& shard_path)
      : path(shard_path), seal(check_seal(shard_path)), file(RawFile::open_read(shard_path)) {}

  std::vector<int64_t> read_int64(int64_t position, int64_t count) const {
    std::vector<int64_t> values(static_cast<size_t>(count));
    file.read_at(position, values.data(), count * 8);
    return values;
  }

  void require_inside(const char* name, int64_t begin, int64_t count, int64_t width) const {
    if (begin < kSealBytes || count > seal.file_bytes / width ||
        begin > seal.file_bytes - count * width)
      fail<IoError>("{}: dataset '{}' lies outside the {} bytes of this token shard", path.string(),
                    name, seal.file_bytes);
  }

  void check_layout() const {
    require_inside("document_offsets", layout.offsets_begin, info.documents + 1, 8);
    require_inside("document_bytes", layout.bytes_begin, info.documents, 8);
    require_inside("tokens", layout.tokens_begin, info.tokens, info.token_width);
    if (layout.tokens_begin != seal.tokens_begin ||
        info.tokens * info.token_width != seal.tokens_bytes)
      fail<IoError>("{}: the tokens of this shard lie at byte {} and not at {} where its seal says",
                    path.string(), layout.tokens_begin, seal.tokens_begin);
  }

  void check_documents() const {
    constexpr int64_t kBlock = 1 << 16;  // bounds the memory of this check
    int64_t previous = 0, total = 0;
    for (int64_t first = 0; first < info.documents; first += kBlock) {
      const int64_t count = std::min(kBlock, info.documents - first);
      const std::vector<int64_t> offsets = read_int64(layout.offsets_begin + first * 8, count + 1);
      const std::vector<int64_t> bytes = read_int64(layout.bytes_begin + first * 8, count);
      if (offsets[0] != previous)
        fail<IoError>("{}: document 0 begins at token {} and not at 0", path.string(), offsets[0]);
      for (int64_t i = 0; i < count; ++i) {
        if (offsets[i + 1] <= offsets[i] || offsets[i + 1] > info.tokens)
          fail<IoError>(
              "{}: document {} is tokens {} to {} of {}: expected increasing offsets "
              "inside the shard",
              path.string(), first + i, offsets[i], offsets[i + 1], info.tokens);
        if (bytes[i] < 0 || bytes[i] > info.text_bytes - total)
          fail<IoError>("{}: document {} of {} bytes exceeds the {} bytes of all documents",
                        path.string(), first + i, bytes[i], info.text_bytes);
        total += bytes[i];
      }
      previous = offsets[count];
    }
    if (previous != info.tokens)
      fail<IoError>("{}: documents end at token {} of {}", path.string(), previous, info.tokens);
    if (total != info.text_bytes)
      fail<IoError>("{}: documents of {} bytes in all, expected {}", path.string(), total,
                    info.text_bytes);
  }

  fs::path path;
  ShardSeal seal;
  RawFile file;
  ShardInfo info;
  std::string tokenizer_json;
  ShardLayout layout;
};

TokenShard::TokenShard(std::unique_ptr<State> state) : state_(std::move(state)) {}
TokenShard::~TokenShard() = default;

std::shared_ptr<const TokenShard> TokenShard::open(const fs::path& path) {
  auto state = std::make_unique<State>(path);
  state->layout = read_shard_structure(path, state->info, state->tokenizer_json);
  state->check_layout();
  state->check_documents();
  return std::shared_ptr<const TokenShard>(new TokenShard(std::move(state)));
}

const fs::path& TokenShard::path() const {
  return state_->path;
}
const ShardInfo& TokenShard::info() const {
  return state_->info;
}
const std::string& TokenShard::tokenizer_json() const {
  return state_->tokenizer_json;
}

std::vector<int64_t> TokenShard::document_offsets() const {
  return state_->read_int64(state_->layout.offsets_begin, state_->info.documents + 1);
}

std::vector<int64_t> TokenShard::document_bytes() const {
  return state_->read_int64(state_->layout.bytes_begin, state_->info.documents);
}

namespace {

template <typename Stored>
void read_stored(const RawFile& file, int64_t position, std::span<TokenId> out) {
  std::vector<Stored> stored(out.size());
  file.read_at(position, stored.data(), static_cast<int64_t>(out.size() * sizeof(Stored)));
  std::transform(stored.begin(), stored.end(), out.begin(), [](Stored id) {
    // Ids above 2^31 become negative and fail the vocabulary check as such.
    return static_cast<TokenId>(id);
  });
}

}  // namespace

void TokenShard::read_tokens(int64_t begin, std::span<TokenId> out) const {
  const ShardInfo& info = state_->info;
  const int64_t count = static_cast<int64_t>(out.size());
  LH_CHECK(begin >= 0 && begin <= info.tokens - count, "[shard] tokens {} + {} of {}", begin, count,
           info.tokens);
  const int64_t position = state_->layout.tokens_begin + begin * info.token_width;
  if (info.token_width == 2)
    read_stored<uint16_t>(state_->file, position, out);
  else
    read_stored<uint32_t>(state_->file, position, out);
  uint32_t largest = 0;
  for (const TokenId id : out) largest = std::max(largest, static_cast<uint32_t>(id));
  if (static_cast<int64_t>(largest) >= info.vocab_size && count > 0) {
    const auto bad = std::find_if(out.begin(), out.end(),
                                  [&](TokenId id) { return id < 0 || id >= info.vocab_size; });
    fail<IoError>(
        "{}: token {} at position {} is outside the vocabulary of {}: the shard is "
        "damaged; copy it again or write it again with 'longhand data prepare'",
        path().string(), static_cast<uint32_t>(*bad), begin + (bad - out.begin()), info.vocab_size);
  }
}

void TokenShard::verify() const {
  verify_tokens(state_->path, state_->seal);
  std::vector<TokenId> buffer(1 << 18);
  for (int64_t begin = 0; begin < info().tokens; begin += static_cast<int64_t>(buffer.size())) {
    const int64_t count =
        std::min<int64_t>(static_cast<int64_t>(buffer.size()), info().tokens - begin);
    read_tokens(begin, std::span(buffer).first(static_cast<size_t>(count)));
  }
}

std::vector<std::shared_ptr<const TokenShard>> open_shards(std::span<const std::string> patterns) {
  std::vector<std::shared_ptr<const TokenShard>> shards;
  for (const fs::path& path : find_files(patterns)) {
    shards.push_back(TokenShard::open(path));
    const ShardInfo& first = shards.front()->info();
    const ShardInfo& last = shards.back()->info();
    if (last.tokenizer_digest != first.tokenizer_digest)
      fail<IoError>(
          "{} and {} were made with different tokenizers (digests {} and {}); prepare "
          "them with the same one",
          shards.front()->path().string(), path.string(), first.tokenizer_digest,
          last.tokenizer_digest);
  }
  return shards;
}

}  // namespace lh
