// Which memory a recording uses, for gpu_graph.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

#include "runtime/device.h"

namespace lh::gpu {

/// What was allocated in the arena of a device during a watch, as offsets.
struct ArenaUse {
  std::map<size_t, size_t> ranges;   // begin -> end, apart from each other
  std::map<size_t, uint64_t> alive;  // blocks that outlived the watch: offset -> serial number
};

/// One watch at a time for a device.
void start_watch(Device device);
ArenaUse stop_watch(Device device);

/// True when nothing lives in the ranges of `use` except the blocks that were alive at its end, and
/// all of those.
bool is_unchanged(Device device, const ArenaUse& use);

}  // namespace lh::gpu
