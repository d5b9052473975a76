#include "train/recorded_step.h"

#include "base/log.h"

namespace lh {

void RecordedStep::forget() {
  graph_ = nullptr;
  has_run_ = false;
}

void RecordedStep::put(int64_t micro, const Batch& batch) {
  const auto at = static_cast<size_t>(micro);
  const auto rows = static_cast<int64_t>(batch.tokens.size());
  if (at >= batches_.size()) batches_.resize(at + 1);
  BatchTensors& place = batches_[at];
  if (place.tokens.defined() && place.tokens.size(0) == rows) {
    place.tokens.copy_bytes_from(Tensor::from(batch.tokens, {rows}));
    place.targets.copy_bytes_from(Tensor::from(batch.targets, {rows}));
    if (!place.layout.reassign(batch.segment_offsets)) forget();
  } else {
    place = BatchTensors::reusable(batch, device_);
    forget();
  }
  if (place.layout.longest() > max_position_) forget();
}

void RecordedStep::run(const std::vector<double>& arguments, const std::function<void()>& work) {
  if (arguments != arguments_) forget();
  arguments_ = arguments;
  if constexpr (kWithCuda) {
    if (graph_ != nullptr && graph_->launch()) {
      ++launches_;
      return;
    }
    if (has_run_ && !gave_up_) {
      try {
        gpu::Capture capture(device_);
        work();
        graph_ = capture.finish();
      } catch (const Error& error) {
        log_info("[graphs] off, this step cannot be recorded: {}", error.what());
        gave_up_ = true;
        graph_ = nullptr;
      }
      if (graph_ != nullptr && graph_->launch()) {
        ++launches_;
        return;
      }
    }
  }
  work();
  has_run_ = true;
}

}  // namespace lh
