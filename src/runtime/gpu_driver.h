// What gpu_arena.cpp asks of a device: addresses for all its memory, and memory behind the first so
// many of them. gpu_cuda.cpp answers for real devices, gpu_emulated.cpp on the host.
#pragma once

#include <cstddef>

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

}  // namespace lh::gpu
