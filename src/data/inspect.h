// `longhand data inspect`: what a token shard holds, for people.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/token_shard.h"

namespace lh {

struct LengthBucket {
  int64_t low = 0, high = 0;  // tokens per document, [low, high)
  int64_t documents = 0;
  int64_t tokens = 0;
};

struct DocumentSample {
  int64_t document = 0;
  int64_t tokens = 0;  // of the whole document
  std::string text;    // decoded from the front, at most sample_tokens of it
};

struct InspectOptions {
  int64_t samples = 3;
  int64_t sample_tokens = 64;
  uint64_t seed = 0;    // chooses the samples
  bool verify = false;  // read and digest all tokens
};

struct ShardReport {
  ShardInfo info;
  double bytes_per_token = 0;         // text bytes per token, end_of_text not counted
  std::vector<LengthBucket> lengths;  // powers of two, from the shortest to the longest document
  std::vector<DocumentSample> samples;
};

/// IoError as TokenShard, and when `verify` finds damage.
ShardReport inspect_shard(const TokenShard& shard, const InspectOptions& options = {});

/// The report as text; samples show line ends and other control characters escaped.
std::string format_report(const TokenShard& shard, const ShardReport& report);

}  // namespace lh
