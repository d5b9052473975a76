// The report on a shard.
#include "data/inspect.h"

#include <doctest/doctest.h>
#include <set>

#include "base/hash.h"
#include "data/shard_seal.h"
#include "data_support.h"

using namespace lh;
using namespace lh::test;

namespace {

std::shared_ptr<const TokenShard> byte_shard(const std::filesystem::path& path,
                                             const std::vector<std::string>& documents) {
  const auto tokenizer = make_byte_tokenizer();
  TokenShardWriter writer(path, *tokenizer);
  for (const std::string& text : documents) {
    std::vector<TokenId> ids;
    tokenizer->encode(text, ids);
    writer.append(ids);
    writer.end_document(static_cast<int64_t>(text.size()));
  }
  writer.finish({{"story.txt", 1234, digest_of("story")}});
  return TokenShard::open(path);
}

}  // namespace

TEST_CASE("the report counts documents tokens bytes and lengths") {
  const Folder folder;
  // Lengths with the end: 2, 3, 4, 4, 101.
  const auto shard = byte_shard(folder / "a.h5", {"a", "bc", "def", "ghi", std::string(100, 'x')});
  const ShardReport report = inspect_shard(*shard, {.samples = 5, .sample_tokens = 50});
  CHECK(report.info.documents == 5);
  CHECK(report.info.tokens == 114);
  CHECK(report.info.text_bytes == 109);
  CHECK(report.bytes_per_token == 1.0);
  REQUIRE(report.lengths.size() == 6);  // 2-3, 4-7, ..., 64-127
  CHECK(report.lengths[0].low == 2);
  CHECK(report.lengths[0].high == 4);
  CHECK(report.lengths[0].documents == 2);
  CHECK(report.lengths[0].tokens == 5);
  CHECK(report.lengths[1].documents == 2);
  CHECK(report.lengths[3].documents == 0);
  CHECK(report.lengths[5].documents == 1);
  REQUIRE(report.samples.size() == 5);
  CHECK(report.samples[0].text == "a<|endoftext|>");
  CHECK(report.samples[4].text == std::string(50, 'x'));
  CHECK(report.samples[4].tokens == 101);
}

TEST_CASE("samples are distinct and chosen by the seed") {
  const Folder folder;
  std::vector<std::string> documents;
  for (int i = 0; i < 200; ++i) documents.push_back(fmt::format("document {}", i));
  const auto shard = byte_shard(folder / "a.h5", documents);
  std::set<std::string> seen;
  for (const DocumentSample& sample : inspect_shard(*shard, {.samples = 20}).samples) {
    CHECK(sample.text == documents[static_cast<size_t>(sample.document)] + "<|endoftext|>");
    seen.insert(sample.text);
  }
  CHECK(seen.size() == 20);
  CHECK(inspect_shard(*shard, {.samples = 2}).samples[0].document ==
        inspect_shard(*shard, {.samples = 2}).samples[0].document);
}

TEST_CASE("the report as text has bars samples digests and no control characters") {
  const Folder folder;
  const auto shard = byte_shard(folder / "a.h5", {"one\ntwo\x1b[31m", "three"});
  const std::string text = format_report(*shard, inspect_shard(*shard));
  for (const std::string& part :
       {shard->path().string(), shard->info().tokenizer_digest, shard->info().content_digest,
        std::string("story.txt"), digest_of("story"), std::string("####"),
        std::string("one\\ntwo\\x1b[31m")}) {
    CAPTURE(part);
    CHECK(contains(text, part));
  }
  CHECK(!contains(text, "\x1b"));
}

TEST_CASE("inspection verifies the tokens on request") {
  const Folder folder;
  byte_shard(folder / "a.h5", {"some text"});
  const ShardSeal seal = check_seal(folder / "a.h5");
  std::string bytes = get(folder / "a.h5");
  bytes[static_cast<size_t>(seal.tokens_begin)] = 'z';
  put(folder / "a.h5", bytes);
  const auto shard = TokenShard::open(folder / "a.h5");
  CHECK(inspect_shard(*shard).samples.size() == 1);
  CHECK(contains(error_of<IoError>([&] { inspect_shard(*shard, {.verify = true}); }),
                 "damaged tokens"));
}
