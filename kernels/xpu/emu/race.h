// The race detector: vector clocks over the threads of a block and shadow cells for shared and
// global memory. Two accesses conflict when no chain of barriers orders them, or, between blocks,
// of device fences and atomics, whatever the schedule happened to be. Kernel files compiled with
// -fsanitize=thread call its hooks.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "kernels/xpu/emu/where.h"

namespace xpu::emu::race {

/// How far each thread of a block has come.
using Progress = std::vector<std::uint32_t>;
/// The same of other blocks. Shared, because after a barrier all threads know the same.
using BlockMap = std::map<int, std::shared_ptr<const Progress>>;
using Blocks = std::shared_ptr<const BlockMap>;

/// What a thread, or an object that threads meet at, knows to have happened.
struct Clock {
  Progress threads;       // of the own block
  Progress fenced;        // the part that device fences show to other blocks; empty: nothing
  Blocks read, acquired;  // of other blocks: read from atomics; the part that a fence followed
};

bool enabled();
/// A launch begins: nothing in global memory has been accessed.
void begin_grid();
void begin_block(int threads, const char* window, std::size_t bytes);
void end_block();

/// Device memory. What is not announced here is not watched.
void add_memory(const void* p, std::size_t bytes);
void remove_memory(const void* p);

/// An access by a wrapper on behalf of `thread`. `async_proxy`: by the copy engine or wgmma, which
/// see ordinary stores to shared memory only after fence.proxy.async.
void access(int thread, const void* p, std::size_t bytes, bool write, Where where,
            bool async_proxy = false);
/// A read-modify-write of an aligned word, atomic on the device.
void atomic(int thread, const void* p, std::size_t bytes, Where where);

/// A barrier among exactly these threads.
void barrier(const int* threads, int count);
/// release: what `thread` did so far is joined into `object`; acquire: the reverse.
void release(int thread, Clock& object);
void acquire(int thread, const Clock& object);
/// Clock of `thread` now, for an effect that it starts; later actions of the thread come after.
Clock snapshot(int thread);
void join(Clock& object, const Clock& other);
void proxy_fence(int thread);
void device_fence(int thread);

}  // namespace xpu::emu::race
