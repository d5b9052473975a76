// Held-out loss: per token, as perplexity, per byte of text, and by position in the context; and how
// often the answers of tasks are right.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/batcher.h"
#include "data/task_sequences.h"
#include "models/decoder.h"

namespace lh {

class Team;

/// What is evaluated on.
struct ValidData {
  std::optional<EvaluationBatches> text;
  std::vector<TaskBatches> tasks;
  bool empty() const { return !text && tasks.empty(); }
};

/// Of the examples of one task. An answer token is right when the model gives it the largest logit
/// (of equal ones the first) after the right tokens before it, as greedy decoding would.
struct TaskResult {
  std::string kind;
  double loss = 0;      // nats per answer token
  double accuracy = 0;  // share of answer tokens that are right
  double exact = 0;     // share of examples of which every answer token is right
  int64_t targets = 0;  // answer tokens
  int64_t examples = 0;

  /// "mqar: loss 0.0123, 99.10% of answer tokens right, 97.00% of 512 examples"
  std::string line() const;
};

/// The figures are those of the text, and `tasks` has its own; without text, loss and targets are those
/// of all tasks together.
struct EvalResult {
  double loss = 0;           // nats per token, total loss / total valid targets
  double bits_per_byte = 0;  // total loss / ln 2 / bytes of text
  int64_t targets = 0;
  int64_t text_bytes = 0;
  double seconds = 0;
  bool stopped = false;  // cut short: the figures are of what was seen, all 0 if that is nothing
  double perplexity() const;

  /// Mean loss of the targets whose context is in [begin, end): powers of two.
  struct Bucket {
    int64_t begin, end;
    double loss;
    int64_t targets;
  };
  std::vector<Bucket> by_position;

  /// What mixers say of themselves (TokenMixer::describe()); on the text, or on the tasks where there is none.
  MixerReport mixers;

  std::vector<TaskResult> tasks;

  /// Of models whose self-pruning mixers learn their gates: the loss with soft ones, as they train. What hard gates
  /// cost is the difference.
  std::optional<double> soft_loss;
};

/// Every target of `batches` once, `sequences` at a time. `stop` is asked before each batch: true
/// ends the evaluation with what was seen (`targets` says how much, maybe 0). `progress` gets the
/// share done. `gates`: how those of self-pruning mixers act; hard, at their own thresholds, unless
/// told otherwise. Throws Error when the data holds no target at all. The processes of a team share
/// the work, call it together, and get the same result.
EvalResult evaluate(const Decoder& model, const EvaluationBatches& batches, int64_t sequences,
                    const std::function<bool()>& stop = nullptr,
                    const std::function<void(double)>& progress = nullptr,
                    const Team* team = nullptr, const GatePhase& gates = {});

/// The same of text and tasks. One that is cut short names no task that was not finished. With the model's own
/// gates it goes through the data a second time for `soft_loss`.
EvalResult evaluate(const Decoder& model, const ValidData& data, int64_t sequences,
                    const std::function<bool()>& stop = nullptr,
                    const std::function<void(double)>& progress = nullptr,
                    const Team* team = nullptr, const GatePhase& gates = {});

}  // namespace lh
