// The one entry through which allocators report to memory.h.
#pragma once

#include <cstdint>

#include "runtime/memory.h"

namespace lh {

/// Adds `bytes` (negative when freed) to the owner's live bytes.
void count_allocation(MemoryOwner owner, int64_t bytes);

}  // namespace lh
