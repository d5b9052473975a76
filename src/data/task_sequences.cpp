#include "data/task_sequences.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/math.h"

namespace lh {
namespace {

/// The last tokens of the batch as a segment.
void end_segment(int64_t tokens, Batch& batch) {
  if (batch.segment_offsets.empty()) batch.segment_offsets.push_back(0);
  batch.positions.resize(batch.positions.size() + static_cast<size_t>(tokens));
  std::iota(batch.positions.end() - tokens, batch.positions.end(), 0);
  batch.segment_offsets.push_back(batch.segment_offsets.back() + tokens);
}

}  // namespace

TaskSequences::TaskSequences(Task task, const Options& options)
    : task_(std::move(task)), options_(options) {
  if (options.end_of_text < 0)
    fail<ConfigError>(
        "the tokenizer names no end-of-text token, so examples could not be told apart; use "
        "data.tokenizer: integers:N");
  const TaskShape& shape = task_.shape();
  if (shape.tokens > options.seq_tokens)
    fail<ConfigError>(
        "an example of the task {} has {} tokens, expected at most the {} of a sequence: raise "
        "data.seq_tokens or make the task smaller",
        task_.config().kind, shape.tokens, options.seq_tokens);
  examples_per_sequence_ = options.seq_tokens / shape.tokens;
}

void TaskSequences::append_examples(int64_t first, int64_t count, Batch& batch) const {
  for (int64_t index = first; index < first + count; ++index) {
    const Example example = task_.example(options_.seed, options_.stream, index);
    TokenId input = options_.end_of_text;
    for (size_t i = 0; i < example.symbols.size(); ++i) {
      const TokenId id = id_of(example.symbols[i]);
      batch.tokens.push_back(input);
      batch.targets.push_back(example.is_answer[i] ? id : -1);
      batch.valid_targets += example.is_answer[i] ? 1 : 0;
      input = id;
    }
    end_segment(task_.shape().tokens, batch);
  }
}

void TaskSequences::append_filling(Batch& batch) const {
  const int64_t rest = options_.seq_tokens - examples_per_sequence_ * task_.shape().tokens;
  if (rest == 0) return;
  batch.tokens.insert(batch.tokens.end(), static_cast<size_t>(rest), options_.end_of_text);
  batch.targets.insert(batch.targets.end(), static_cast<size_t>(rest), -1);
  end_segment(rest, batch);
}

TaskBatches::TaskBatches(Task task, const TaskSequences::Options& options, int64_t examples)
    : sequences_(std::move(task), options), examples_(examples) {
  if (examples < 1) fail<ConfigError>("expected at least 1 example to evaluate, got {}", examples);
}

int64_t TaskBatches::sequences() const {
  return ceil_div(examples_, sequences_.examples_per_sequence());
}

Batch TaskBatches::make_batch(int64_t first_sequence, int64_t count) const {
  LH_CHECK(first_sequence >= 0 && count >= 1 && first_sequence + count <= sequences(),
           "[data] evaluation sequences {} + {} of {}", first_sequence, count, sequences());
  const int64_t each = sequences_.examples_per_sequence(), first = first_sequence * each;
  Batch batch;
  sequences_.append_examples(first, std::min(count * each, examples_ - first), batch);
  return batch;
}

}  // namespace lh
