#include "data/inspect.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/philox.h"
#include "base/text.h"

namespace lh {

namespace {

std::vector<LengthBucket> length_buckets(const std::vector<int64_t>& offsets) {
  std::vector<LengthBucket> buckets(64);
  for (size_t d = 0; d + 1 < offsets.size(); ++d) {
    const int64_t tokens = offsets[d + 1] - offsets[d];
    LengthBucket& bucket = buckets[std::bit_width(static_cast<uint64_t>(tokens)) - 1];
    ++bucket.documents;
    bucket.tokens += tokens;
  }
  for (size_t i = 0; i < buckets.size() - 1; ++i) {
    buckets[i].low = int64_t{1} << i;
    buckets[i].high = i < 62 ? int64_t{2} << i : INT64_MAX;
  }
  const auto used = [](const LengthBucket& bucket) { return bucket.documents > 0; };
  const auto first = std::find_if(buckets.begin(), buckets.end(), used);
  const auto last = std::find_if(buckets.rbegin(), buckets.rend(), used).base();
  return {first, last};
}

std::string escape_controls(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\n')
      out += "\\n";
    else if (c == '\t')
      out += "\\t";
    else if (c == '\r')
      out += "\\r";
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F)
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    else
      out += c;
  }
  return out;
}

}  // namespace

ShardReport inspect_shard(const TokenShard& shard, const InspectOptions& options) {
  if (options.verify) shard.verify();
  ShardReport report;
  report.info = shard.info();
  const std::vector<int64_t> offsets = shard.document_offsets();
  report.lengths = length_buckets(offsets);
  const int64_t text_tokens = report.info.tokens - report.info.documents;
  report.bytes_per_token = static_cast<double>(report.info.text_bytes) /
                           static_cast<double>(std::max<int64_t>(text_tokens, 1));

  const auto tokenizer = parse_tokenizer(shard.tokenizer_json(), shard.path().string());
  Philox random(options.seed);
  std::vector<int64_t> chosen;
  for (int64_t i = 0; i < std::min(options.samples, report.info.documents); ++i) {
    int64_t document = 0;
    do document = static_cast<int64_t>(random.below(static_cast<uint64_t>(report.info.documents)));
    while (std::find(chosen.begin(), chosen.end(), document) != chosen.end());
    chosen.push_back(document);
  }
  std::sort(chosen.begin(), chosen.end());
  for (const int64_t document : chosen) {
    const int64_t tokens = offsets[document + 1] - offsets[document];
    std::vector<TokenId> ids(static_cast<size_t>(std::min(tokens, options.sample_tokens)));
    shard.read_tokens(offsets[document], ids);
    report.samples.push_back({document, tokens, tokenizer->decode(ids)});
  }
  return report;
}

std::string format_report(const TokenShard& shard, const ShardReport& report) {
  const ShardInfo& info = report.info;
  std::string out = fmt::format(
      "{}\n"
      "  documents        {}\n"
      "  tokens           {} ({} bits each, vocabulary {})\n"
      "  text             {} ({:.3f} bytes per token)\n"
      "  tokenizer        {}\n"
      "  content          {}\n",
      shard.path().string(), info.documents, info.tokens, 8 * info.token_width, info.vocab_size,
      format_bytes(static_cast<double>(info.text_bytes)), report.bytes_per_token,
      info.tokenizer_digest, info.content_digest);
  for (const SourceFile& source : info.sources)
    out += fmt::format("  source           {} ({}, {})\n", escape_controls(source.name),
                       format_bytes(static_cast<double>(source.bytes)), source.digest);

  constexpr int64_t kBarWidth = 40;
  int64_t most = 1;
  for (const LengthBucket& bucket : report.lengths) most = std::max(most, bucket.documents);
  out += "\n  tokens per document      documents   share of tokens\n";
  for (const LengthBucket& bucket : report.lengths) {
    // Rounded up, so that a bucket with any document shows.
    const int64_t bar = (bucket.documents * kBarWidth + most - 1) / most;
    out += fmt::format(
        "  {:>9} to {:<9} {:>12} {:>6.1f}%  {}\n", bucket.low, bucket.high - 1, bucket.documents,
        100.0 * static_cast<double>(bucket.tokens) / static_cast<double>(info.tokens),
        std::string(static_cast<size_t>(bar), '#'));
  }
  for (const DocumentSample& sample : report.samples)
    out += fmt::format("\n  document {} ({} tokens): {}\n", sample.document, sample.tokens,
                       escape_controls(sample.text));
  return out;
}

}  // namespace lh
