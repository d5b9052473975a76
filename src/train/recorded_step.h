// A training step as one CUDA graph: its inputs at fixed addresses, and the graph that reads them.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "runtime/gpu.h"
#include "train/batch_tensors.h"

namespace lh {

class RecordedStep {
 public:
  /// Documents of more than max_position tokens are never replayed, so that they meet their error.
  RecordedStep(Device device, int64_t max_position)
      : device_(device), max_position_(max_position) {}

  /// Copies micro-batch `micro` to its place on the device, in stream order. A batch of another
  /// shape, or of many more documents, gets a new place, and the step is recorded again.
  void put(int64_t micro, const Batch& batch);
  const BatchTensors& batch(int64_t micro) const { return batches_[static_cast<size_t>(micro)]; }

  /// Enqueues the step: `work`, whose launches depend on nothing but the shapes of the batches and
  /// `arguments`. Runs it the first time, so that whatever is made on first use exists; records it
  /// the second time; then launches the recording as long as its memory is free.
  void run(const std::vector<double>& arguments, const std::function<void()>& work);

  int64_t launches() const { return launches_; }  // of recordings

 private:
  void forget();

  Device device_;
  int64_t max_position_;
  std::vector<BatchTensors> batches_;
  std::vector<double> arguments_;
  std::unique_ptr<gpu::Graph> graph_;
  bool has_run_ = false;   // with these arguments and places
  bool gave_up_ = false;   // the step cannot be recorded
  int64_t launches_ = 0;
};

}  // namespace lh
