// One optimizer step: micro-batches forward and backward, then the update.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "config/recipe.h"
#include "data/batcher.h"
#include "models/decoder.h"
#include "optim/optimizer.h"

namespace lh {

struct StepResult {
  double loss = 0;       // total loss / valid targets of the global batch
  double grad_norm = 0;  // before clipping
  double flops = 0;      // useful arithmetic, forward and backward
  bool stopped = false;  // `stop` said so between micro-batches: nothing was updated
  std::string non_finite;  // "" or the name of the first bad tensor: nothing was updated
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
  GatePhase gates{};           // train/gate_schedule.h
};

/// Gradients are those of total loss / total valid targets, however the step is cut.
StepResult train_step(const StepContext& context, double learning_rate_factor);

}  // namespace lh
