// Packed batches for training and evaluation: documents of shards side by side without padding, and
// whole examples of tasks, with their boundaries. Attention, positions and targets never cross a
// boundary.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/batch.h"
#include "data/mixture.h"
#include "data/sampler.h"
#include "data/task.h"

namespace lh {

/// The training stream. A step consists of sequences_per_step sequences, numbered from 0; any
/// range of them is a micro-batch. Const methods are safe to call from several threads at once.
class TrainingBatches {
 public:
  struct Source {
    std::vector<std::shared_ptr<const TokenShard>> shards;  // or, if there are none:
    double weight = 1;  // share of the tokens, relative to the other sources
    std::optional<Task> task = {};
  };
  struct Options {
    int64_t seq_tokens = 0;
    int64_t sequences_per_step = 0;
    uint64_t seed = 0;
    bool shuffle = true;
    TokenId end_of_text = -1;  // of the tokenizer, for tasks: -1 is none
  };

  /// ConfigError when a source has neither shards nor a task, when shards were made with different
  /// tokenizers, or when an example does not fit a sequence.
  TrainingBatches(std::vector<Source> sources, const Options& options);
  ~TrainingBatches();

  /// A pure function of its arguments and the options, whoever calls it and in what order.
  Batch make_batch(int64_t step, int64_t first_sequence, int64_t sequences) const;

  /// Valid targets of a whole step, the denominator of its loss: known before any batch. Steps differ
  /// where a mixture gives them different numbers of sequences of tasks.
  int64_t valid_targets(int64_t step) const;

  /// Tokens of a whole step that belong to a document or example: all but filling.
  int64_t document_tokens(int64_t step) const;

  /// Weights, content digests of all shards and settings of all tasks in order: equal for streams of
  /// equal sequences (under equal options), whatever the shards are called.
  const std::string& content() const { return content_; }

  /// Passes over a source that the steps before `step` have made; 0 for a task, which never repeats.
  double epochs(int64_t source, int64_t step) const;
  int64_t tokens(int64_t source) const;  // 0: a task, without end
  const Mixture& mixture() const { return mixture_; }

 private:
  class Stream;
  /// Sum over a step's sequences of what each source has per sequence.
  int64_t in_step(int64_t step, int64_t (Stream::*per_sequence)() const) const;
  class ShardStream;
  class TaskStream;

  Options options_;
  Mixture mixture_;
  std::string content_;
  std::vector<std::unique_ptr<Stream>> streams_;
};

/// Held-out documents in order, each token a target exactly once. Pieces are packed whole, so a
/// segment's context is as long as seq_tokens allows; a batch of n sequences has at most
/// n * seq_tokens tokens.
class EvaluationBatches {
 public:
  /// `max_tokens` > 0 stops at the first piece that reaches it.
  EvaluationBatches(std::vector<std::shared_ptr<const TokenShard>> shards, int64_t seq_tokens,
                    int64_t max_tokens = 0);

  int64_t sequences() const { return static_cast<int64_t>(first_pieces_.size()) - 1; }
  Batch make_batch(int64_t first_sequence, int64_t sequences) const;

  int64_t valid_targets() const { return valid_targets_; }
  /// UTF-8 bytes of the text that the targets stand for (end_of_text: none), so that bits per byte
  /// is total nats / ln 2 / text_bytes.
  int64_t text_bytes() const { return text_bytes_; }
  /// False when max_tokens cut the last document; its bytes are then counted in proportion.
  bool whole_documents() const { return whole_documents_; }

 private:
  void share_bytes(int64_t pieces);

  PieceTable pieces_;
  std::vector<int64_t> first_pieces_;  // of each sequence, and the end
  std::vector<int64_t> piece_bytes_;
  int64_t valid_targets_ = 0;
  int64_t text_bytes_ = 0;
  bool whole_documents_ = true;
};

}  // namespace lh
