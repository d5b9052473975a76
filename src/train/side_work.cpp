#include "train/side_work.h"

#include "runtime/gpu.h"

namespace lh {

void on_side_stream(Device device, const std::function<void()>& work) {
  if constexpr (kWithCuda)
    if (device.kind == DeviceKind::kCuda) {
      const gpu::SideStream side(device);
      work();
      return;
    }
  work();
}

StreamFence::StreamFence(Device device) {
  if constexpr (kWithCuda)
    if (device.kind == DeviceKind::kCuda) event_ = std::make_shared<gpu::Event>(device);
}

void StreamFence::set() {
  if constexpr (kWithCuda)
    if (event_ != nullptr) static_cast<gpu::Event*>(event_.get())->record();
}

void StreamFence::wait() const {
  if constexpr (kWithCuda)
    if (event_ != nullptr) static_cast<gpu::Event*>(event_.get())->wait();
}

}  // namespace lh
