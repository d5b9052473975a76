// Tasks in the training mixture and in evaluation: whole examples as documents, exact counts of
// targets, and batches that depend on step and sequence alone.
#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "data/batcher.h"
#include "data/task_sequences.h"
#include "data_support.h"

using namespace lh;
using namespace lh::test;

namespace {

constexpr TokenId kEnd = 99;
const TaskConfig kCopy{.kind = "selective_copy", .length = 20, .items = 4, .vocab = 6};
const TaskConfig kRecall{.kind = "mqar", .length = 24, .pairs = 3, .vocab = 12};

TrainingBatches::Source source(const TaskConfig& task, double weight = 1) {
  return {{}, weight, Task(task)};
}

std::vector<int32_t> part(const std::vector<int32_t>& all, int64_t begin, int64_t end) {
  return {all.begin() + begin, all.begin() + end};
}

/// Checks that rows [begin, end) are the example, and returns how many targets it has.
int64_t check_example(const Batch& batch, int64_t begin, int64_t end, const Example& example,
                      TokenId end_of_text) {
  REQUIRE(end - begin == static_cast<int64_t>(example.symbols.size()));
  int64_t targets = 0;
  for (int64_t i = 0; i < end - begin; ++i) {
    const auto row = static_cast<size_t>(begin + i), at = static_cast<size_t>(i);
    REQUIRE(batch.positions[row] == i);
    REQUIRE(batch.tokens[row] == (i == 0 ? end_of_text : example.symbols[at - 1]));
    REQUIRE(batch.targets[row] == (example.is_answer[at] ? example.symbols[at] : -1));
    targets += example.is_answer[at] ? 1 : 0;
  }
  return targets;
}

bool same(const Batch& a, const Batch& b) {
  return a.tokens == b.tokens && a.targets == b.targets && a.positions == b.positions &&
         a.segment_offsets == b.segment_offsets && a.valid_targets == b.valid_targets;
}

}  // namespace

TEST_CASE("a sequence holds whole examples in order and a rest without targets") {
  const Task task(kCopy);
  for (const int64_t seq_tokens : {20, 39, 40, 73}) {
    CAPTURE(seq_tokens);
    const TrainingBatches batches({source(kCopy)}, {.seq_tokens = seq_tokens,
                                                    .sequences_per_step = 3,
                                                    .seed = 4,
                                                    .end_of_text = kEnd});
    int64_t next = 0;
    for (int64_t step = 0; step < 4; ++step) {
      const Batch batch = batches.make_batch(step, 0, 3);
      REQUIRE(static_cast<int64_t>(batch.tokens.size()) == 3 * seq_tokens);
      REQUIRE(batch.targets.size() == batch.tokens.size());
      REQUIRE(batch.positions.size() == batch.tokens.size());
      int64_t targets = 0;
      for (size_t s = 0; s + 1 < batch.segment_offsets.size(); ++s) {
        const int64_t begin = batch.segment_offsets[s], end = batch.segment_offsets[s + 1];
        if (seq_tokens - begin % seq_tokens >= 20) {
          targets += check_example(batch, begin, end, task.example(4, 0, next++), kEnd);
        } else {
          CHECK(end % seq_tokens == 0);
          for (int64_t row = begin; row < end; ++row) {
            REQUIRE(batch.tokens[static_cast<size_t>(row)] == kEnd);
            REQUIRE(batch.targets[static_cast<size_t>(row)] == -1);
            REQUIRE(batch.positions[static_cast<size_t>(row)] == row - begin);
          }
        }
      }
      CHECK(batch.segment_offsets.back() == 3 * seq_tokens);
      CHECK(targets == batch.valid_targets);
      CHECK(targets == batches.valid_targets(step));
      CHECK(next == (step + 1) * 3 * (seq_tokens / 20));
    }
    CHECK(batches.tokens(0) == 0);
    CHECK(batches.epochs(0, 100) == 0);
  }
}

TEST_CASE("the targets of every step of a mixture are known before its batches") {
  const Folder folder;
  const auto shard = counting_shard(folder / "a.h5", {30, 50, 11, 200}, 0, 1000);
  const TrainingBatches batches(
      {{{shard}, 3.0}, source(kCopy, 1.5), source(kRecall, 1)},
      {.seq_tokens = 64, .sequences_per_step = 4, .seed = 2, .end_of_text = 999});
  std::set<int64_t> counts;
  for (int64_t step = 0; step < 40; ++step) {
    int64_t targets = 0;
    for (int64_t sequence = 0; sequence < 4; ++sequence)
      targets += batches.make_batch(step, sequence, 1).valid_targets;
    CHECK(targets == batches.valid_targets(step));
    CHECK(targets == batches.make_batch(step, 0, 4).valid_targets);
    counts.insert(targets);
  }
  CHECK(counts.size() > 1);  // steps do differ
}

TEST_CASE("a batch depends on step and sequences alone and streams are independent") {
  const std::vector<TrainingBatches::Source> sources = {source(kCopy), source(kCopy)};
  const TrainingBatches::Options options{
      .seq_tokens = 40, .sequences_per_step = 4, .seed = 7, .end_of_text = kEnd};
  const TrainingBatches one(sources, options), other(sources, options);
  other.make_batch(12, 1, 2);
  for (const int64_t step : {5, 0, 3}) CHECK(same(one.make_batch(step, 1, 3), other.make_batch(step, 1, 3)));
  CHECK(one.content() == other.content());
  // Equal tasks in one mixture give different examples, and so does another seed.
  const Batch batch = one.make_batch(0, 0, 2);
  CHECK(part(batch.tokens, 0, 40) != part(batch.tokens, 40, 80));
  TrainingBatches::Options reseeded = options;
  reseeded.seed = 8;
  CHECK(!same(TrainingBatches(sources, reseeded).make_batch(0, 0, 1), one.make_batch(0, 0, 1)));
  TaskConfig harder = kCopy;
  harder.items = 5;
  CHECK(TrainingBatches({source(kCopy), source(harder)}, options).content() != one.content());
}

TEST_CASE("evaluation takes the first examples of a stream that training does not see") {
  const Task task(kRecall);
  const uint64_t stream = TaskSequences::validation_stream(2);
  CHECK(stream != TaskSequences::training_stream(2));
  CHECK(stream != TaskSequences::training_stream(1));
  CHECK(stream != TaskSequences::training_stream(3));
  const TaskBatches batches(task, {.seq_tokens = 50, .seed = 3, .stream = stream, .end_of_text = 40},
                            7);
  CHECK(batches.sequences() == 4);
  CHECK(batches.valid_targets() == 21);
  int64_t next = 0, targets = 0;
  for (const auto& [first, count] : {std::pair{0, 3}, {3, 1}}) {
    const Batch batch = batches.make_batch(first, count);
    for (size_t s = 0; s + 1 < batch.segment_offsets.size(); ++s)
      targets += check_example(batch, batch.segment_offsets[s], batch.segment_offsets[s + 1],
                               task.example(3, stream, next++), 40);
    CHECK(batch.segment_offsets.back() == static_cast<int64_t>(batch.tokens.size()));
  }
  CHECK(next == 7);
  CHECK(targets == 21);
}

TEST_CASE("symbols leave out the id that ends a document") {
  const TaskBatches low(Task(kCopy), {.seq_tokens = 20, .seed = 1, .stream = 0, .end_of_text = 2}, 20);
  const TaskBatches high(Task(kCopy), {.seq_tokens = 20, .seed = 1, .stream = 0, .end_of_text = 8}, 20);
  const Batch a = low.make_batch(0, 20), b = high.make_batch(0, 20);
  for (size_t i = 0; i < a.tokens.size(); ++i) {
    const bool starts = a.positions[i] == 0;
    CHECK((a.tokens[i] == 2) == starts);
    CHECK((b.tokens[i] == 8) == starts);
    if (!starts) CHECK(a.tokens[i] == b.tokens[i] + (b.tokens[i] >= 2 ? 1 : 0));
    CHECK(a.targets[i] != 2);
  }
}

TEST_CASE("examples that do not fit and tokenizers without an end are refused") {
  const auto error = [](const TrainingBatches::Options& options) {
    try {
      const TrainingBatches batches({source(kCopy)}, options);
    } catch (const ConfigError& caught) {
      return std::string(caught.what());
    }
    return std::string();
  };
  const std::string longer =
      error({.seq_tokens = 19, .sequences_per_step = 1, .end_of_text = kEnd});
  CHECK_MESSAGE(longer.find("20 tokens, expected at most the 19") != std::string::npos, longer);
  CHECK(error({.seq_tokens = 20, .sequences_per_step = 1}).find("end-of-text") !=
        std::string::npos);
  CHECK(error({.seq_tokens = 20, .sequences_per_step = 1, .end_of_text = kEnd}).empty());
}
