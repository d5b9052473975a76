#include "data/piece_table.h"

#include <algorithm>

#include "base/error.h"

namespace lh {

PieceTable::PieceTable(std::vector<std::shared_ptr<const TokenShard>> shards, int64_t seq_tokens)
    : shards_(std::move(shards)) {
  if (shards_.empty()) fail<ConfigError>("no token shard given");
  if (seq_tokens < 1) fail<ConfigError>("data.seq_tokens must be at least 1, got {}", seq_tokens);
  int64_t base = 0;
  for (const auto& shard : shards_) {
    const ShardInfo& info = shard->info();
    if (info.tokenizer_digest != shards_[0]->info().tokenizer_digest)
      fail<ConfigError>("{} and {} were made with different tokenizers",
                        shards_[0]->path().string(), shard->path().string());
    shard_begins_.push_back(base);
    const std::vector<int64_t> offsets = shard->document_offsets();
    for (int64_t d = 0; d < info.documents; ++d) {
      for (int64_t begin = offsets[d]; begin < offsets[d + 1]; begin += seq_tokens)
        starts_.push_back((base + begin) << 1 | (begin == offsets[d]));
    }
    base += info.tokens;
    text_bytes_ += info.text_bytes;
  }
  starts_.push_back(base << 1);
  starts_.shrink_to_fit();
}

Slice PieceTable::piece(int64_t index) const {
  return {starts_[index] >> 1, piece_tokens(index), (starts_[index] & 1) != 0};
}

void PieceTable::read(const Slice& slice, std::span<TokenId> inputs,
                      std::span<TokenId> targets) const {
  LH_CHECK(static_cast<int64_t>(inputs.size()) == slice.tokens && inputs.size() == targets.size(),
           "[data] {} inputs and {} targets for {} tokens", inputs.size(), targets.size(),
           slice.tokens);
  const auto after = std::upper_bound(shard_begins_.begin(), shard_begins_.end(), slice.begin);
  const size_t index = static_cast<size_t>(after - shard_begins_.begin()) - 1;
  const TokenShard& shard = *shards_[index];
  const int64_t begin = slice.begin - shard_begins_[index];
  shard.read_tokens(begin, targets);
  if (slice.starts_document)
    inputs[0] = shard.info().end_of_text;
  else
    shard.read_tokens(begin - 1, inputs.first(1));
  std::copy(targets.begin(), targets.end() - 1, inputs.begin() + 1);
}

}  // namespace lh
