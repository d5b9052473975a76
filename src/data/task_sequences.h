// Examples of a task laid side by side in sequences, and batches of fresh ones for evaluation.
//
// What a model sees of an example s[0..n-1] is n (input, target) pairs, as of a document:
// (end_of_text, s[0]), (s[0], s[1]), ...; where s[i] is no answer the target is -1. Symbols take the
// ids of the vocabulary in order, end_of_text left out.
#pragma once

#include "data/batch.h"
#include "data/task.h"
#include "tokenizer/tokenizer.h"

namespace lh {

class TaskSequences {
 public:
  struct Options {
    int64_t seq_tokens = 0;
    uint64_t seed = 0;
    uint64_t stream = 0;
    TokenId end_of_text = -1;
  };

  /// Streams of the mixture's source at `place`. No example of one appears in the other but by chance.
  static uint64_t training_stream(int64_t place) { return 2 * static_cast<uint64_t>(place); }
  static uint64_t validation_stream(int64_t place) { return training_stream(place) + 1; }

  /// ConfigError when an example does not fit a sequence or there is no end_of_text.
  TaskSequences(Task task, const Options& options);

  const Task& task() const { return task_; }
  int64_t examples_per_sequence() const { return examples_per_sequence_; }

  /// Each example as a segment of its own.
  void append_examples(int64_t first, int64_t count, Batch& batch) const;
  /// What is left of a sequence of whole examples: a segment without targets.
  void append_filling(Batch& batch) const;

 private:
  TokenId id_of(int32_t symbol) const { return symbol + (symbol >= options_.end_of_text ? 1 : 0); }

  Task task_;
  Options options_;
  int64_t examples_per_sequence_ = 0;
};

/// The first `examples` of a stream, for evaluation. Segments are the examples, without filling.
class TaskBatches {
 public:
  TaskBatches(Task task, const TaskSequences::Options& options, int64_t examples);

  const Task& task() const { return sequences_.task(); }
  int64_t examples() const { return examples_; }
  int64_t sequences() const;
  int64_t valid_targets() const { return examples_ * task().shape().answers; }
  Batch make_batch(int64_t first_sequence, int64_t sequences) const;

 private:
  TaskSequences sequences_;
  int64_t examples_;
};

}  // namespace lh
