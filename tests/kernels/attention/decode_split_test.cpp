// The choice of splits: the device is filled where there are keys to fill it with, and not otherwise.
#include "kernels/attention/decode_split.h"

#include <doctest/doctest.h>

using namespace lh::kernels;

namespace {

std::vector<AttentionSegment> batch(const std::vector<int>& lengths) {
  std::vector<AttentionSegment> segments;
  for (const int n : lengths) segments.push_back({0, 1, 0, n, n - 1});
  return segments;
}

/// Blocks that have keys.
int parts(const std::vector<int>& lengths, const AttentionDecodeSplit& split, int per_part) {
  int count = 0;
  for (const int n : lengths) {
    const int wanted = (n + split.split_keys - 1) / split.split_keys;
    count += std::max(1, std::min(split.splits, wanted));
  }
  return count * per_part;
}

}  // namespace

TEST_CASE("decode splits fill the device for one long sequence") {
  for (const int keys : {4096, 16384, 131072, 1000000}) {
    CAPTURE(keys);
    const auto split = attention_decode_split(batch({keys}), {}, 8, 264);
    const int blocks = parts({keys}, split, 8);
    CHECK(blocks <= 264);
    CHECK((blocks >= 230 || split.split_keys == 128));
    CHECK(split.split_keys % 16 == 0);
    CHECK(std::int64_t{split.splits} * split.split_keys >= keys);
  }
}

TEST_CASE("decode splits leave a batch alone that fills the device") {
  const std::vector<int> lengths(32, 16384);
  CHECK(attention_decode_split(batch(lengths), {}, 8, 264).splits == 1);
  // 36 sequences would leave a second wave of 24 blocks: shorter parts even it out.
  const std::vector<int> more(36, 16384);
  const auto split = attention_decode_split(batch(more), {}, 8, 264);
  const int blocks = parts(more, split, 8), waves = (blocks + 263) / 264;
  CHECK(split.splits > 1);
  CHECK(waves * split.split_keys < 1.2 * 36 * 8 * 16384 / 264);
}

TEST_CASE("decode splits do not cut short sequences") {
  for (const int keys : {0, 1, 100, 240})
    CHECK(attention_decode_split(batch({keys}), {}, 1, 264).splits == 1);
  CHECK(attention_decode_split({}, {}, 8, 264).splits == 1);
  CHECK(attention_decode_split(batch({512}), {}, 1, 264).splits <= 4);
}

TEST_CASE("decode splits cut by the keys that are seen") {
  AttentionMask window;
  window.window = 512;
  const auto split = attention_decode_split(batch({1000000}), window, 1, 264);
  CHECK(split.splits <= 4);
  CHECK(split.split_keys >= 128);
}

TEST_CASE("decode splits of ragged batches are long enough for the longest sequence") {
  std::vector<int> lengths(15, 300);
  lengths.push_back(100000);
  const auto split = attention_decode_split(batch(lengths), {}, 8, 264);
  CHECK(std::int64_t{split.splits} * split.split_keys >= 100000);
  const int blocks = parts(lengths, split, 8), waves = (blocks + 263) / 264;
  CHECK(blocks > 230);
  CHECK(waves * split.split_keys < 1.2 * 8 * 104500 / 264);  // little above all keys on all slots
}
