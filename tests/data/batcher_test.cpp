// Shuffling, packing, mixtures and evaluation order. The reference is the set of all (input,
// target) pairs of the documents, made from the documents alone.
#include "data/batcher.h"

#include <doctest/doctest.h>
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "base/philox.h"
#include "data/permutation.h"
#include "data_support.h"

using namespace lh;
using namespace lh::test;

namespace {

constexpr int64_t kVocab = 100'000;
constexpr TokenId kEnd = kVocab - 1;

std::vector<int64_t> random_lengths(int documents, int64_t longest, uint64_t seed) {
  Philox random(seed);
  std::vector<int64_t> lengths;
  for (int d = 0; d < documents; ++d)
    lengths.push_back(1 + static_cast<int64_t>(random.below(static_cast<uint64_t>(longest))));
  return lengths;
}

int64_t total(const std::vector<int64_t>& lengths) {
  return std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
}

/// (input, target) of each stored token of a counting_shard, in order. All are distinct but for
/// one-token documents, which are (end, end).
std::vector<std::pair<int32_t, int32_t>> expected_pairs(const std::vector<int64_t>& lengths,
                                                        TokenId base = 0) {
  std::vector<std::pair<int32_t, int32_t>> pairs;
  int32_t position = base;
  for (const int64_t length : lengths)
    for (int64_t i = 0; i < length; ++i, ++position)
      pairs.emplace_back(i == 0 ? kEnd : position - 1, i + 1 == length ? kEnd : position);
  return pairs;
}

std::vector<std::pair<int32_t, int32_t>> pairs_of(const Batch& batch) {
  std::vector<std::pair<int32_t, int32_t>> pairs;
  for (size_t i = 0; i < batch.tokens.size(); ++i)
    pairs.emplace_back(batch.tokens[i], batch.targets[i]);
  return pairs;
}

void check_form(const Batch& batch) {
  const int64_t n = static_cast<int64_t>(batch.tokens.size());
  REQUIRE(static_cast<int64_t>(batch.targets.size()) == n);
  REQUIRE(static_cast<int64_t>(batch.positions.size()) == n);
  REQUIRE(batch.segment_offsets.front() == 0);
  REQUIRE(batch.segment_offsets.back() == n);
  for (size_t s = 0; s + 1 < batch.segment_offsets.size(); ++s) {
    const int64_t begin = batch.segment_offsets[s], end = batch.segment_offsets[s + 1];
    REQUIRE(begin < end);
    for (int64_t i = begin; i < end; ++i) {
      REQUIRE(batch.positions[i] == i - begin);
      // Within a segment the input is the target of the pair before.
      if (i > begin) REQUIRE(batch.tokens[i] == batch.targets[i - 1]);
      // An end of text closes its document: nothing of the segment may follow.
      if (batch.targets[i] == kEnd) REQUIRE(i + 1 == end);
    }
  }
  REQUIRE(batch.valid_targets == n - std::count(batch.targets.begin(), batch.targets.end(), -1));
}

bool same(const Batch& a, const Batch& b) {
  return a.tokens == b.tokens && a.targets == b.targets && a.positions == b.positions &&
         a.segment_offsets == b.segment_offsets && a.valid_targets == b.valid_targets;
}

/// The micro-batches of a step, one after another as one batch.
Batch joined(const TrainingBatches& source, int64_t step, std::vector<int64_t> parts) {
  Batch whole;
  whole.segment_offsets = {0};
  int64_t first = 0;
  for (const int64_t count : parts) {
    const Batch part = source.make_batch(step, first, count);
    const int64_t base = static_cast<int64_t>(whole.tokens.size());
    whole.tokens.insert(whole.tokens.end(), part.tokens.begin(), part.tokens.end());
    whole.targets.insert(whole.targets.end(), part.targets.begin(), part.targets.end());
    whole.positions.insert(whole.positions.end(), part.positions.begin(), part.positions.end());
    for (size_t s = 1; s < part.segment_offsets.size(); ++s)
      whole.segment_offsets.push_back(base + part.segment_offsets[s]);
    whole.valid_targets += part.valid_targets;
    first += count;
  }
  return whole;
}

}  // namespace

TEST_CASE("the shuffle is a permutation for every size") {
  for (const uint64_t size : {1, 2, 3, 5, 17, 63, 64, 65, 1000, 4096, 4097}) {
    CAPTURE(size);
    const Permutation order(size, 3, 9);
    std::vector<bool> seen(size, false);
    for (uint64_t i = 0; i < size; ++i) {
      const uint64_t value = order(i);
      REQUIRE(value < size);
      REQUIRE(!seen[value]);
      seen[value] = true;
    }
  }
  // Large ranges can't be listed: distinct places give distinct elements.
  const Permutation large((uint64_t{1} << 40) + 12345, 1, 2);
  std::set<uint64_t> seen;
  for (uint64_t i = 0; i < 20'000; ++i) REQUIRE(seen.insert(large(i * 1'000'003)).second);
}

TEST_CASE("shuffles of small ranges are uniform over all orders") {
  std::map<std::vector<uint64_t>, int> counts;
  constexpr int kTrials = 24'000;
  for (int seed = 0; seed < kTrials; ++seed) {
    const Permutation order(4, static_cast<uint64_t>(seed), 0);
    ++counts[{order(0), order(1), order(2), order(3)}];
  }
  CHECK(counts.size() == 24);
  double chi_squared = 0;
  for (const auto& [order, count] : counts)
    chi_squared += (count - 1000.0) * (count - 1000.0) / 1000.0;
  CHECK(chi_squared < 49.7);  // 23 degrees of freedom, p = 0.001
}

TEST_CASE("shuffles of different seeds and epochs share no more places than chance") {
  const Permutation base(10'000, 1, 0);
  for (const auto& [seed, stream] : {std::pair{1, 1}, {2, 0}, {1, 1 << 20}}) {
    const Permutation other(10'000, static_cast<uint64_t>(seed), static_cast<uint64_t>(stream));
    int equal = 0;
    double correlation = 0;
    for (uint64_t i = 0; i < 10'000; ++i) {
      equal += base(i) == other(i);
      correlation += (static_cast<double>(other(i)) - 4999.5) * (static_cast<double>(i) - 4999.5);
    }
    CHECK(equal < 8);  // Poisson with mean 1
    CHECK(std::abs(correlation / (10'000 * 10'000.0 * 10'000.0 / 12)) < 0.04);  // 4 sigma
  }
}

TEST_CASE("an epoch uses every token exactly once as a target") {
  const Folder folder;
  const std::vector<int64_t> a = random_lengths(300, 90, 1), b = random_lengths(40, 700, 2);
  const TokenId base_b = 50'000;
  const auto shard_a = counting_shard(folder / "a.h5", a);
  const auto shard_b = counting_shard(folder / "b.h5", b, base_b);
  std::vector<std::pair<int32_t, int32_t>> expected = expected_pairs(a);
  for (const auto& pair : expected_pairs(b, base_b)) expected.push_back(pair);
  const int64_t tokens = total(a) + total(b);
  std::sort(expected.begin(), expected.end());

  for (const int64_t seq_tokens : {1, 7, 64, 1000}) {
    CAPTURE(seq_tokens);
    const TrainingBatches source({{{shard_a, shard_b}, 1.0}},
                                 {.seq_tokens = seq_tokens, .sequences_per_step = 1, .seed = 5});
    std::vector<std::pair<int32_t, int32_t>> stream;
    for (int64_t step = 0; step * seq_tokens < 3 * tokens; ++step) {
      const Batch batch = source.make_batch(step, 0, 1);
      check_form(batch);
      REQUIRE(static_cast<int64_t>(batch.tokens.size()) == seq_tokens);
      REQUIRE(batch.valid_targets == source.valid_targets(step));
      for (const auto& pair : pairs_of(batch)) stream.push_back(pair);
    }
    std::vector<std::pair<int32_t, int32_t>> previous;
    for (int epoch = 0; epoch < 3; ++epoch) {
      const std::vector<std::pair<int32_t, int32_t>> in_order(
          stream.begin() + epoch * tokens, stream.begin() + (epoch + 1) * tokens);
      CHECK(in_order != previous);
      previous = in_order;
      std::vector<std::pair<int32_t, int32_t>> sorted = in_order;
      std::sort(sorted.begin(), sorted.end());
      CHECK(sorted == expected);
    }
  }
}

TEST_CASE("an epoch of half a million documents is indexed by several threads") {
  const Folder folder;
  constexpr int64_t kDocuments = 600'000, kTokens = 3 * kDocuments;
  const std::vector<int64_t> lengths(kDocuments, 3);
  const auto shard = counting_shard(folder / "a.h5", lengths, 0, 2'000'000);
  const TrainingBatches source({{{shard}, 1.0}},
                               {.seq_tokens = 1000, .sequences_per_step = 100, .seed = 3});
  std::vector<int> uses(kTokens, 0);
  for (int64_t step = 0; step < kTokens / 100'000; ++step)
    for (const int32_t id : source.make_batch(step, 0, 100).targets)
      if (id < kTokens) ++uses[id];
  bool once = true;
  for (int64_t i = 0; i < kTokens; ++i) once = once && uses[i] == (i % 3 != 2);
  CHECK(once);
}

TEST_CASE("data smaller than one sequence is repeated") {
  const Folder folder;
  const TrainingBatches source({{{counting_shard(folder / "a.h5", {3, 2})}, 1.0}},
                               {.seq_tokens = 64, .sequences_per_step = 2});
  const Batch batch = source.make_batch(3, 0, 2);
  check_form(batch);
  CHECK(batch.tokens.size() == 128);
}

TEST_CASE("without shuffling documents come in order") {
  const Folder folder;
  const std::vector<int64_t> lengths = random_lengths(50, 40, 3);
  const TrainingBatches source(
      {{{counting_shard(folder / "a.h5", lengths)}, 1.0}},
      {.seq_tokens = 32, .sequences_per_step = 1, .seed = 0, .shuffle = false});
  std::vector<std::pair<int32_t, int32_t>> stream;
  while (static_cast<int64_t>(stream.size()) < total(lengths))
    for (const auto& pair :
         pairs_of(source.make_batch(static_cast<int64_t>(stream.size()) / 32, 0, 1)))
      stream.push_back(pair);
  stream.resize(static_cast<size_t>(total(lengths)));
  CHECK(stream == expected_pairs(lengths));
}

TEST_CASE("two readers with different splits of the step see the same sequences") {
  const Folder folder;
  const std::vector<TrainingBatches::Source> sources = {
      {{counting_shard(folder / "a.h5", random_lengths(200, 100, 4))}, 0.7},
      {{counting_shard(folder / "b.h5", random_lengths(100, 100, 5), 50'000)}, 0.3}};
  const TrainingBatches::Options options{.seq_tokens = 48, .sequences_per_step = 8, .seed = 1};
  const TrainingBatches one(sources, options), other(sources, options);
  for (int64_t step = 0; step < 30; ++step) {
    const Batch whole = one.make_batch(step, 0, 8);
    check_form(whole);
    REQUIRE(whole.step == step);
    REQUIRE(same(whole, joined(other, step, {2, 2, 2, 2})));
    REQUIRE(same(whole, joined(other, step, {5, 1, 2})));
  }
}

TEST_CASE("resuming at a step gives what running through gives") {
  const Folder folder;
  const std::vector<TrainingBatches::Source> sources = {
      {{counting_shard(folder / "a.h5", random_lengths(30, 100, 6))}, 2},
      {{counting_shard(folder / "b.h5", random_lengths(20, 100, 7), 50'000)}, 1}};
  const TrainingBatches::Options options{.seq_tokens = 32, .sequences_per_step = 4, .seed = 9};
  const TrainingBatches through(sources, options);
  std::vector<Batch> batches;
  for (int64_t step = 0; step < 60; ++step) batches.push_back(through.make_batch(step, 0, 4));
  CHECK(through.epochs(0, 60) > 3);
  for (const int64_t step : {59, 0, 17, 31, 58, 3}) {
    const TrainingBatches resumed(sources, options);
    CHECK(same(resumed.make_batch(step, 0, 4), batches[static_cast<size_t>(step)]));
  }
  const TrainingBatches reseeded(
      sources, {.seq_tokens = 32, .sequences_per_step = 4, .seed = 10, .shuffle = true});
  CHECK(!same(reseeded.make_batch(0, 0, 4), batches[0]));
}

TEST_CASE("a mixture gives each source its share within one sequence at every moment") {
  const std::vector<std::vector<double>> cases = {{1},
                                                  {1, 1},
                                                  {0.7, 0.2, 0.1},
                                                  {3, 1},
                                                  {1, 1, 1},
                                                  {0.123456, 0.5, 0.376544},
                                                  {5, 4, 3, 2, 1, 1, 1, 1},
                                                  {0.999, 0.001},
                                                  {3.14159265, 2.71828183, 1.41421356}};
  for (const std::vector<double>& weights : cases) {
    const Mixture mixture(weights);
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    std::vector<int64_t> counts(weights.size(), 0);
    for (size_t i = 0; i < weights.size(); ++i)
      REQUIRE(mixture.share(static_cast<int64_t>(i)) ==
              doctest::Approx(weights[i] / sum).epsilon(2e-5));
    for (int64_t k = 0; k < 5'000; ++k) {
      for (size_t i = 0; i < weights.size(); ++i)
        REQUIRE(mixture.count(static_cast<int64_t>(i), k) == counts[i]);
      const Mixture::Draw draw = mixture(k);
      REQUIRE(draw.index == counts[static_cast<size_t>(draw.source)]++);
      for (size_t i = 0; i < weights.size(); ++i) {
        const double due = static_cast<double>(k + 1) * mixture.share(static_cast<int64_t>(i));
        REQUIRE(std::abs(static_cast<double>(counts[i]) - due) < 1.0);
      }
    }
  }
}

TEST_CASE("mixture weights that make no sense are errors") {
  CHECK_THROWS_AS(Mixture(std::vector<double>{}), ConfigError);
  CHECK_THROWS_AS(Mixture(std::vector<double>{1, 0}), ConfigError);
  CHECK_THROWS_AS(Mixture(std::vector<double>{1, -1}), ConfigError);
  CHECK_THROWS_AS(Mixture(std::vector<double>{1, std::nan("")}), ConfigError);
  CHECK_THROWS_AS(Mixture(std::vector<double>{1, 1e-9}), ConfigError);
}

TEST_CASE("a mixture far into the run still counts exactly") {
  const Mixture mixture(std::vector<double>{0.7, 0.3});
  const int64_t k = 1'000'000'000'007;
  const Mixture::Draw draw = mixture(k);
  CHECK(draw.index == mixture.count(draw.source, k));
  CHECK(mixture.count(0, k) + mixture.count(1, k) == k);
}

TEST_CASE("sources of a mixture are mixed inside a step") {
  const Folder folder;
  const TrainingBatches source(
      {{{counting_shard(folder / "a.h5", random_lengths(99, 50, 8))}, 3},
       {{counting_shard(folder / "b.h5", random_lengths(99, 50, 9), 50'000)}, 1}},
      {.seq_tokens = 16, .sequences_per_step = 8});
  for (int64_t step = 0; step < 20; ++step) {
    int from_b = 0;
    for (int64_t i = 0; i < 8; ++i) {
      const Batch batch = source.make_batch(step, i, 1);
      from_b += std::all_of(batch.targets.begin(), batch.targets.end(),
                            [](int32_t id) { return id >= 50'000; });
    }
    CHECK(from_b == 2);
  }
}

TEST_CASE("sequential evaluation covers each target once in order with exact bytes") {
  const Folder folder;
  const std::vector<int64_t> a = random_lengths(120, 90, 10), b = random_lengths(9, 500, 11);
  const auto shard_a = counting_shard(folder / "a.h5", a);
  const auto shard_b = counting_shard(folder / "b.h5", b, 50'000);
  std::vector<std::pair<int32_t, int32_t>> expected = expected_pairs(a);
  for (const auto& pair : expected_pairs(b, 50'000)) expected.push_back(pair);
  for (const int64_t seq_tokens : {1, 50, 64, 100'000}) {
    CAPTURE(seq_tokens);
    const EvaluationBatches source({shard_a, shard_b}, seq_tokens);
    std::vector<std::pair<int32_t, int32_t>> pairs;
    int64_t valid = 0;
    double bytes = 0;
    for (int64_t s = 0; s < source.sequences();) {
      const int64_t count = std::min<int64_t>(3, source.sequences() - s);
      const Batch batch = source.make_batch(s, count);
      check_form(batch);
      REQUIRE(static_cast<int64_t>(batch.tokens.size()) <= count * seq_tokens);
      for (const auto& pair : pairs_of(batch)) pairs.push_back(pair);
      valid += batch.valid_targets;
      bytes += batch.target_bytes;
      s += count;
    }
    CHECK(pairs == expected);
    CHECK(valid == source.valid_targets());
    CHECK(valid == total(a) + total(b));
    CHECK(source.text_bytes() == shard_a->info().text_bytes + shard_b->info().text_bytes);
    CHECK(bytes == static_cast<double>(source.text_bytes()));
    CHECK(source.whole_documents());
  }
}

TEST_CASE("evaluation gives a document all the context that seq_tokens allows") {
  const Folder folder;
  const EvaluationBatches source({counting_shard(folder / "a.h5", {30, 30, 30, 150})}, 64);
  const Batch batch = source.make_batch(0, source.sequences());
  // No document of at most 64 tokens is cut, though two and a bit fit into a sequence.
  CHECK(batch.segment_offsets == std::vector<int64_t>{0, 30, 60, 90, 154, 218, 240});
}

TEST_CASE("evaluation stops at its token limit and says when it cut a document") {
  const Folder folder;
  const auto shard = counting_shard(folder / "a.h5", {30, 30, 200});
  const EvaluationBatches two({shard}, 64, 60);
  CHECK(two.valid_targets() == 60);
  CHECK(two.whole_documents());
  CHECK(two.text_bytes() == 1 + 4);
  const EvaluationBatches cut({shard}, 64, 100);
  CHECK(cut.valid_targets() == 60 + 64);
  CHECK(!cut.whole_documents());
  CHECK(cut.text_bytes() == 1 + 4 + 7 * 64 / 200);
  const EvaluationBatches all({shard}, 64, 1'000'000);
  CHECK(all.valid_targets() == 260);
}

TEST_CASE("sources of different tokenizers are not mixed") {
  const Folder folder;
  const auto a = counting_shard(folder / "a.h5", {4}, 0, 300);
  const auto b = counting_shard(folder / "b.h5", {4}, 0, 301);
  const TrainingBatches::Options options{.seq_tokens = 2, .sequences_per_step = 1};
  CHECK_THROWS_AS(TrainingBatches({{{a}, 1}, {{b}, 1}}, options), ConfigError);
  CHECK_THROWS_AS(TrainingBatches({{{a, b}, 1}}, options), ConfigError);
  CHECK_THROWS_AS(TrainingBatches({}, options), ConfigError);
  CHECK_THROWS_AS(TrainingBatches({{{a}, 1}}, {.seq_tokens = 0, .sequences_per_step = 1}),
                  ConfigError);
}
