// The one entry through which allocators report to memory.h.
#pragma once

#include <cstdint>

#include "runtime/device.h"
#include "runtime/memory.h"

namespace lh {

/// Adds `bytes` (negative when freed) to the owner's live bytes on that kind of device.
void count_allocation(DeviceKind kind, MemoryOwner owner, int64_t bytes);

}  // namespace lh
