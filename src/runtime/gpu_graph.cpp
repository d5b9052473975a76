// Graphs: a recording of the device, and the memory it used meanwhile.
#include <cstdlib>
#include <string_view>

#include "runtime/gpu.h"
#include "runtime/gpu_arena.h"
#include "runtime/gpu_driver.h"

namespace lh::gpu {
namespace {

class RecordedGraph final : public Graph {
 public:
  RecordedGraph(Device device, std::unique_ptr<Recording> recording, ArenaUse use)
      : device_(device), recording_(std::move(recording)), use_(std::move(use)) {}

  bool launch() override {
    if (!is_unchanged(device_, use_)) return false;
    recording_->replay();
    return true;
  }

 private:
  Device device_;
  std::unique_ptr<Recording> recording_;
  ArenaUse use_;
};

}  // namespace

bool synchronous() {
  static const bool wanted = [] {
    const char* value = std::getenv("LH_CUDA_SYNC");
    return value != nullptr && std::string_view(value) == "1";
  }();
  return wanted;
}

Capture::Capture(Device device) : device_(device) {
  start_recording(device);
  start_watch(device);
}

Capture::~Capture() {
  if (!recording_) return;
  stop_watch(device_);
  try {
    stop_recording(device_);
  } catch (const std::exception&) {
    // The error that ended the capture is on its way already.
  }
}

std::unique_ptr<Graph> Capture::finish() {
  recording_ = false;
  ArenaUse use = stop_watch(device_);
  return std::make_unique<RecordedGraph>(device_, stop_recording(device_), std::move(use));
}

}  // namespace lh::gpu
