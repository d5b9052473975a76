// What gpu_arena.cpp and gpu_graph.cpp ask of a device: addresses for all its memory, memory behind
// the first so many of them, and recordings. gpu_cuda.cpp answers for real devices,
// gpu_emulated.cpp on the host.
#pragma once

#include <cstddef>
#include <memory>

#include "runtime/device.h"

namespace lh::gpu {

struct AddressRange {
  char* base = nullptr;
  size_t bytes = 0;
};

AddressRange reserve_addresses(Device device);

/// Puts memory behind [committed, end) of the range and returns the new end, rounded up to the
/// device's granularity; returns `committed` when the device has not enough.
size_t commit(Device device, const AddressRange& range, size_t committed, size_t end);

constexpr int kLanes = 2;  // the main stream and the other, each with an arena
/// Of this thread: 1 within a SideStream, else 0.
int lane();

/// What was enqueued between start_recording and stop_recording.
class Recording {
 public:
  virtual ~Recording() = default;
  virtual void replay() = 0;
};
void start_recording(Device device);
/// Throws Error when something could not be recorded; the device records no more in any case.
std::unique_ptr<Recording> stop_recording(Device device);

}  // namespace lh::gpu
