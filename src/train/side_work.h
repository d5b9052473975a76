// Work on a device's second stream, beside what the main one does (runtime/gpu.h). On the CPU and on the meta device there
// is one order, and all of this does nothing of its own.
#pragma once

#include <functional>
#include <memory>

#include "runtime/device.h"

namespace lh {

/// Runs `work` with this thread's second stream.
void on_side_stream(Device device, const std::function<void()>& work);

/// A point in one stream that another waits for, without the host.
class StreamFence {
 public:
  explicit StreamFence(Device device);
  /// All work that this thread has given to its stream so far lies before the fence.
  void set();
  /// What this thread gives to its stream from now on lies behind it. Nothing if it was never set.
  void wait() const;

 private:
  std::shared_ptr<void> event_;  // a gpu::Event, which CUDA builds alone have
};

}  // namespace lh
