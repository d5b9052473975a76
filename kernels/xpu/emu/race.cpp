// Vector clocks, the report, and the hooks that instrumented code calls.
#include "kernels/xpu/emu/race.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>

#include "kernels/xpu/emu/race_state.h"

namespace xpu::emu {

namespace race {

State state;

namespace {

void join_progress(Progress& into, const Progress& other) {
  if (into.size() < other.size()) into.resize(other.size(), 0);
  for (std::size_t i = 0; i < other.size(); ++i) into[i] = std::max(into[i], other[i]);
}

void access(int thread, const void* p, std::size_t bytes, bool write, Site site, bool async) {
  const auto offset = static_cast<std::size_t>(static_cast<const char*>(p) - state.window);
  if (offset < state.bytes) {
    access_shared(thread, offset, bytes, write, site, async);
  } else {
    access_global(thread, reinterpret_cast<std::uintptr_t>(p), bytes, write, site);
  }
}

}  // namespace

std::string Site::describe() const {
  if (bits_ & kWhere) return emu::describe(where());
  const char* code = reinterpret_cast<const char*>(bits_);
  Dl_info info;
  if (!dladdr(code, &info)) return "unknown";
  char command[512];
  std::snprintf(command, sizeof command, "addr2line -i -e %s 0x%zx 2>/dev/null", info.dli_fname,
                code - static_cast<const char*>(info.dli_fbase) - 1);
  // Innermost first: the kernel's line is the first outside the wrappers.
  std::string place;
  if (FILE* pipe = popen(command, "r")) {
    bool found = false;
    for (char line[512]; !found && std::fgets(line, sizeof line, pipe);) {
      const std::string text = line;
      found = text.find("kernels/xpu/") == std::string::npos ||
              text.find("tests/kernels/xpu/") != std::string::npos;
      if (found || place.empty()) place = text.substr(0, text.find_first_of(" \n"));
    }
    pclose(pipe);
  }
  return place.empty() || place[0] == '?' ? "unknown" : place.substr(place.rfind('/') + 1);
}

void report(const char* kind, const std::string& memory, int thread, const Site& site,
            const std::string& earlier, const Site& earlier_site) {
  fail_in_place(site.where(), std::string(kind) + " on " + memory + ": " + thread_name(thread) +
                                  " at " + site.describe() + " is not ordered after the " +
                                  earlier + " at " + earlier_site.describe());
}

bool enabled() {
  return state.active;
}

void begin_block(int threads, const char* window, std::size_t bytes) {
  if (!state.enabled) return;
  state.block = static_cast<int>((blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x);
  state.threads = threads;
  state.window = window;
  state.bytes = bytes;
  state.clocks.assign(threads, Clock{Progress(threads, 0), {}, nullptr, nullptr});
  for (int i = 0; i < threads; ++i) state.clocks[i].threads[i] = 1;
  state.proxy_fences.assign(threads, 0);
  reset_shared();
  state.active = true;
}

void end_block() {
  state.active = false;
}

void access(int thread, const void* p, std::size_t bytes, bool write, Where where, bool async) {
  if (!state.active) return;
  const Pause pause;
  access(thread, p, bytes, write, Site(where), async);
}

Blocks joined(const Blocks& a, const Blocks& b) {
  if (!b || a == b) return a;
  if (!a) return b;
  auto all = std::make_shared<BlockMap>(*a);
  for (const auto& [block, progress] : *b) {
    auto& mine = (*all)[block];
    if (!mine) {
      mine = progress;
    } else if (mine != progress) {
      auto both = std::make_shared<Progress>(*mine);
      join_progress(*both, *progress);
      mine = both;
    }
  }
  return all;
}

void join(Clock& object, const Clock& other) {
  join_progress(object.threads, other.threads);
  join_progress(object.fenced, other.fenced);
  object.read = joined(object.read, other.read);
  object.acquired = joined(object.acquired, other.acquired);
}

void barrier(const int* threads, int count) {
  if (!state.active) return;
  const Pause pause;
  Clock all;
  for (int i = 0; i < count; ++i) join(all, state.clocks[threads[i]]);
  for (int i = 0; i < count; ++i) {
    Clock& clock = state.clocks[threads[i]];
    clock = all;
    ++clock.threads[threads[i]];
  }
}

void release(int thread, Clock& object) {
  if (!state.active) return;
  const Pause pause;
  join(object, state.clocks[thread]);
  ++state.clocks[thread].threads[thread];
}

void acquire(int thread, const Clock& object) {
  if (!state.active) return;
  const Pause pause;
  join(state.clocks[thread], object);
}

Clock snapshot(int thread) {
  if (!state.active) return {};
  const Pause pause;
  Clock clock = state.clocks[thread];
  ++state.clocks[thread].threads[thread];
  return clock;
}

void proxy_fence(int thread) {
  if (!state.active) return;
  std::uint32_t& now = state.clocks[thread].threads[thread];
  state.proxy_fences[thread] = now++;
}

void device_fence(int thread) {
  if (!state.active) return;
  const Pause pause;
  Clock& clock = state.clocks[thread];
  clock.acquired = joined(clock.acquired, clock.read);
  clock.fenced = clock.threads;
  ++clock.threads[thread];
}

/// From the compiler's hooks below.
void hook(const void* p, std::size_t bytes, bool write, const void* code) {
  if (!state.active) return;
  const Pause pause;
  access(self(), p, bytes, write, Site(code), false);
}

}  // namespace race

void enable_race_detector() {
  race::state.enabled = true;
}

}  // namespace xpu::emu

// The entry points -fsanitize=thread calls. libtsan is not linked; these stand in for it.
#define XPU_HOOK(name, bytes, write)                                      \
  void name(void* p) {                                                    \
    ::xpu::emu::race::hook(p, bytes, write, __builtin_return_address(0)); \
  }
extern "C" {
XPU_HOOK(__tsan_read1, 1, false)
XPU_HOOK(__tsan_read2, 2, false)
XPU_HOOK(__tsan_read4, 4, false)
XPU_HOOK(__tsan_read8, 8, false)
XPU_HOOK(__tsan_read16, 16, false)
XPU_HOOK(__tsan_write1, 1, true)
XPU_HOOK(__tsan_write2, 2, true)
XPU_HOOK(__tsan_write4, 4, true)
XPU_HOOK(__tsan_write8, 8, true)
XPU_HOOK(__tsan_write16, 16, true)
XPU_HOOK(__tsan_unaligned_read2, 2, false)
XPU_HOOK(__tsan_unaligned_read4, 4, false)
XPU_HOOK(__tsan_unaligned_read8, 8, false)
XPU_HOOK(__tsan_unaligned_read16, 16, false)
XPU_HOOK(__tsan_unaligned_write2, 2, true)
XPU_HOOK(__tsan_unaligned_write4, 4, true)
XPU_HOOK(__tsan_unaligned_write8, 8, true)
XPU_HOOK(__tsan_unaligned_write16, 16, true)
void __tsan_read_range(void* p, std::size_t n) {
  ::xpu::emu::race::hook(p, n, false, __builtin_return_address(0));
}
void __tsan_write_range(void* p, std::size_t n) {
  ::xpu::emu::race::hook(p, n, true, __builtin_return_address(0));
}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
// Guards of function-local statics load their byte with acquire order.
char __tsan_atomic8_load(const volatile char* p, int) {
  return *p;
}
}
