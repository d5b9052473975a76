// One optimizer step: micro-batches forward and backward, then the update. On a device everything is
// enqueued, the update included, and the host waits once, for the numbers of the result.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "backend/reduce.h"
#include "config/recipe.h"
#include "data/batcher.h"
#include "models/decoder.h"
#include "optim/optimizer.h"
#include "train/batch_tensors.h"

namespace lh {

struct StepResult {
  double loss = 0;       // total loss / valid targets of the global batch
  double grad_norm = 0;  // before clipping
  double flops = 0;      // useful arithmetic, forward and backward
  bool stopped = false;  // `stop` said so between micro-batches: nothing was updated
  std::string non_finite;  // "" or the name of the first bad tensor: nothing was updated
};

/// What a run keeps from step to step.
struct StepState {
  TensorList gradients;
  std::optional<BatchTensors> ahead;  // the next step's first micro-batch, on its way to the device
};

struct StepContext {
  Decoder& model;
  Optimizer& optimizer;
  const Recipe& recipe;
  /// Micro-batch i of this step.
  std::function<Batch(int64_t micro)> batch;
  int64_t micro_batches = 1;
  int64_t valid_targets = 0;  // of the whole step
  std::function<bool()> stop;  // may be empty
  /// The first micro-batch of the step after this one, when it is ready: it is sent to the device
  /// before this step is waited for, and the next step takes it instead of asking `batch`. May be
  /// empty; needs `state`.
  std::function<std::optional<Batch>()> next = nullptr;
  StepState* state = nullptr;  // null: a fresh one
};

/// Gradients are those of total loss / total valid targets, however the step is cut.
StepResult train_step(const StepContext& context, double learning_rate_factor);

}  // namespace lh
