// The race detector: vector clocks over the threads of a block, a shadow cell for every two bytes
// of shared memory. Two accesses conflict when no chain of barriers orders them, whatever the
// schedule happened to be. Kernel files compiled with -fsanitize=thread call its hooks.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/xpu/emu/where.h"

namespace xpu::emu::race {

using Clock = std::vector<std::uint32_t>;

bool enabled();
void begin_block(int threads, const char* window, std::size_t bytes);
void end_block();

/// An access by a wrapper on behalf of `thread`. `async_proxy`: by the copy engine or wgmma, which
/// see ordinary stores only after fence.proxy.async.
void access(int thread, const void* p, std::size_t bytes, bool write, Where where,
            bool async_proxy = false);

/// A barrier among exactly these threads.
void barrier(const int* threads, int count);
/// release: what `thread` did so far is joined into `object`; acquire: the reverse.
void release(int thread, Clock& object);
void acquire(int thread, const Clock& object);
/// Clock of `thread` now, for an effect that it starts; later actions of the thread come after.
Clock snapshot(int thread);
void join(Clock& object, const Clock& other);
void proxy_fence(int thread);

}  // namespace xpu::emu::race
