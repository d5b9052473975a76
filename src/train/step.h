// One optimizer step: micro-batches forward and backward, then the update. On a device everything is
// enqueued, the update included, and the host waits once, for the numbers of the result.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "backend/reduce.h"
#include "config/recipe.h"
#include "data/batcher.h"
#include "models/decoder.h"
#include "optim/optimizer.h"
#include "train/batch_tensors.h"
#include "train/gradient_reducer.h"
#include "train/recorded_step.h"
#include "train/team.h"

namespace lh {

struct StepResult {
  double loss = 0;       // total loss / valid targets of the global batch
  double grad_norm = 0;  // before clipping
  double density_loss = 0;  // schedule.gates.density_weight's term, which `loss` leaves out
  double flops = 0;      // arithmetic of all processes, recomputed forwards left out
  bool stopped = false;  // `stop` said so between micro-batches: nothing was updated
  std::string non_finite = {};  // "" or the name of the first bad tensor: nothing was updated
};

/// What the host wants to know of a step, f64 in one tensor on the device, so that reading it is one
/// wait: loss sums by micro-batch, then the squared gradient norm.
class StepNumbers {
 public:
  StepNumbers(int64_t micro_batches, Device device);
  int64_t micro_batches() const { return micro_batches_; }
  Tensor losses() const { return all_.slice(0, 0, micro_batches_); }
  Tensor loss(int64_t micro) const { return all_.slice(0, micro, micro + 1); }
  Tensor squared_norm() const { return all_.slice(0, micro_batches_, micro_batches_ + 1); }
  Tensor on_host() const { return all_.to(kCpuDevice); }

 private:
  int64_t micro_batches_;
  Tensor all_;
};

/// What a run keeps from step to step. One model, optimizer and recipe use one.
struct StepState {
  TensorList gradients;
  std::optional<BatchTensors> ahead;  // the next step's first micro-batch, on its way to the device
  std::optional<StepNumbers> numbers;       // of recorded steps
  std::unique_ptr<RecordedStep> recorded;   // where precision.cuda_graphs and the model allow it
  bool first_in_place = false;              // `recorded` holds the next step's first micro-batch
  std::unique_ptr<GradientReducer> reducer;  // of a step that processes share
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
  int64_t document_tokens = 0;  // of the whole step, all but filling; needed by gates.density_weight
  /// The first micro-batch of the step after this one, when it is ready: it is sent to the device
  /// before this step is waited for, and the next step takes it instead of asking `batch`. May be
  /// empty; needs `state`.
  std::function<std::optional<Batch>()> next = nullptr;
  StepState* state = nullptr;  // null: a fresh one
  /// The processes that share the step; null: this one alone. All call train_step together. Where they share
  /// the optimizer too, the gradients that are left behind are sums in this process's parts alone.
  const Team* team = nullptr;
};

/// A step of a CUDA device with a `state` is recorded and launched as one graph, where the model and
/// precision.cuda_graphs allow it; the arithmetic is the same, bit for bit.
/// Gradients are those of total loss / total valid targets, however the step is cut.
StepResult train_step(const StepContext& context, double learning_rate_factor);

}  // namespace lh
