// Held-out loss: per token, as perplexity, per byte of text, and by position in the context.
#pragma once

#include <functional>
#include <vector>

#include "data/batcher.h"
#include "models/decoder.h"

namespace lh {

class Team;

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
};

/// Every target of `batches` once, `sequences` at a time. `stop` is asked before each batch: true
/// ends the evaluation with what was seen (`targets` says how much, maybe 0). `progress` gets the
/// share done. Throws Error when the data holds no target at all. The processes of a team share the
/// work, call it together, and get the same result.
EvalResult evaluate(const Decoder& model, const EvaluationBatches& batches, int64_t sequences,
                    const std::function<bool()>& stop = nullptr,
                    const std::function<void(double)>& progress = nullptr,
                    const Team* team = nullptr);

}  // namespace lh
