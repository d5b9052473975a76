// A thread that keeps a few batches ready, so that a training step does not wait for the disk.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "data/batcher.h"

namespace lh {

enum class Fetch {
  kReady,    // a batch was handed out
  kEnd,      // there are no more
  kStopped,  // the stop flag rose while waiting
  kTimeout,
};

class Prefetcher {
 public:
  /// Makes the batch of an index, or nullopt after the last. Runs in the prefetch thread.
  using Produce = std::function<std::optional<Batch>(int64_t index)>;

  /// Starts producing indices first, first + 1, ... with at most `depth` >= 1 batches waiting.
  Prefetcher(Produce produce, int64_t first, int64_t depth);
  /// Waits for the batch being made, if any, and no longer.
  ~Prefetcher();

  /// Waits for the next batch, in order. `stop` may be set by a signal handler and is looked at
  /// every few milliseconds; a batch that is ready is handed out even then. An exception of
  /// `produce` is thrown here, after the batches before it, and again by every later call.
  Fetch next(Batch& batch, const std::atomic<bool>* stop = nullptr,
             std::chrono::milliseconds timeout = std::chrono::hours(24 * 365));

  /// Time that calls of next have waited, in all.
  double waited_seconds() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lh
