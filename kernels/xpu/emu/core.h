// What the emulator's own files share: the running block, its threads, sleeping and waking,
// failing, shared-memory checks, deferred effects. Kernels never see this header.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "kernels/xpu/emu/launch.h"

namespace xpu::emu {

int self();           // linear index of the running thread in its block
int block_threads();  // threads of the running block
int live_threads();   // those that have not exited
unsigned live_lanes(int warp);  // those of a warp, one bit each
class Fiber;
Fiber* running_fiber();       // null outside kernels
std::string running_place();  // "rms_norm_kernel<float>, block (3,0,0), thread 37 (warp 1 lane 5)"
inline int lane_of(int thread) { return thread % 32; }
inline int warp_of(int thread) { return thread / 32; }

/// Abandons the block; run_grid throws xpu::Error with kernel, block, thread and place.
[[noreturn]] void fail(Where where, const std::string& message);
/// The same without unwinding the thread's stack: for callers the compiler holds to be noexcept.
[[noreturn]] void fail_in_place(Where where, const std::string& message);
/// Lets others run until wake(self()). `what` names the wait in deadlock reports.
void sleep(const char* what, Where where);
void wake(int thread);

/// Decides at the issue of an asynchronous effect whether it happens at once.
bool perform_now();
/// An effect nobody may be waiting for by name (a TMA copy): happens at a random moment, or when
/// no thread can run.
void defer(std::function<void()> effect);

/// 32-bit address as the hardware sees it; checks that [p, p + bytes) is allocated shared memory.
std::uint32_t shared_address(const void* p, std::size_t bytes, std::size_t alignment,
                             const char* what, Where where);
char* shared_pointer(std::uint32_t address, std::size_t bytes, const char* what, Where where);

Counters& mutable_counters();
std::string describe(Where where);       // "rms_norm.cu:41"
std::string thread_name(int thread);     // "thread 37 (warp 1 lane 5)"

// Per-block state of the other files.
void reset_threads();
void reset_async_copies();
void reset_mbarriers();
void reset_wgmma();
void on_thread_exit(int thread);
void finish_stores(int thread);  // TMA stores that an exiting thread did not wait for

}  // namespace xpu::emu
