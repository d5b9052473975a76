// Vector clocks and shadow memory (FastTrack: Flanagan and Freund, PLDI 2009, with one clock entry
// per reader only while several threads read).
#include "kernels/xpu/emu/race.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "kernels/xpu/emu/core.h"

namespace xpu::emu {

namespace race {

namespace {

struct Site {  // a wrapper's caller, or the address of an instrumented instruction
  Where where{nullptr, 0};
  const void* code = nullptr;
};

struct Cell {
  std::int16_t writer = -1, reader = -1;
  std::int32_t readers = -1;  // index of a per-thread clock table, -1: at most one reader
  std::uint32_t write_clock = 0, read_clock = 0;
  bool async_write = false;
  Site write_site, read_site;
};

struct State {
  bool enabled = false, active = false;
  int threads = 0;
  const char* window = nullptr;
  std::size_t bytes = 0;
  std::vector<Clock> clocks;          // [threads][threads]
  std::vector<std::uint32_t> fences;  // clock of each thread's last proxy fence
  std::vector<Cell> cells;
  std::vector<Clock> tables;
  std::vector<int> free_tables;
};
State state;

std::string source_of(const Site& site) {
  if (site.code == nullptr) return describe(site.where);
  Dl_info info;
  if (!dladdr(site.code, &info)) return "unknown";
  char command[512], line[512] = "";
  std::snprintf(command, sizeof command, "addr2line -e %s 0x%zx 2>/dev/null", info.dli_fname,
                static_cast<const char*>(site.code) - static_cast<const char*>(info.dli_fbase) - 1);
  if (FILE* pipe = popen(command, "r")) {
    if (!std::fgets(line, sizeof line, pipe)) line[0] = 0;
    pclose(pipe);
  }
  std::string text = line;
  text = text.substr(0, text.find_first_of(" \n"));
  return text.empty() || text[0] == '?' ? "unknown" : text.substr(text.rfind('/') + 1);
}

[[noreturn]] void report(const char* kind, const void* p, int earlier, const Site& earlier_site,
                         const char* verb, int thread, const Site& site) {
  const auto offset = static_cast<const char*>(p) - state.window;
  state.active = false;
  fail_in_place(site.where, std::string(kind) + " on shared memory at byte " +
                                std::to_string(offset) + ": " + thread_name(thread) + " at " +
                                source_of(site) + " is not ordered after the " + verb + " by " +
                                thread_name(earlier) + " at " + source_of(earlier_site));
}

bool ordered(int earlier, std::uint32_t clock, int now) {
  return earlier < 0 || earlier == now || clock <= state.clocks[now][earlier];
}

void read(Cell& cell, const void* p, int t, const Site& site, bool async) {
  if (!ordered(cell.writer, cell.write_clock, t)) {
    report("read-after-write race", p, cell.writer, cell.write_site, "write", t, site);
  }
  if (async && !cell.async_write && cell.writer >= 0 &&
      state.fences[cell.writer] < cell.write_clock) {
    report("missing fence_proxy_async", p, cell.writer, cell.write_site, "fence after the write", t,
           site);
  }
  const std::uint32_t clock = state.clocks[t][t];
  if (cell.readers < 0) {
    if (ordered(cell.reader, cell.read_clock, t)) {  // the last reader is covered by this one
      cell.reader = static_cast<std::int16_t>(t);
      cell.read_clock = clock;
      cell.read_site = site;
      return;
    }
    if (state.free_tables.empty()) {
      state.free_tables.push_back(static_cast<int>(state.tables.size()));
      state.tables.emplace_back();
    }
    cell.readers = state.free_tables.back();
    state.free_tables.pop_back();
    state.tables[cell.readers].assign(state.threads, 0);
    state.tables[cell.readers][cell.reader] = cell.read_clock;
  }
  state.tables[cell.readers][t] = clock;
  cell.read_site = site;
}

void write(Cell& cell, const void* p, int t, const Site& site, bool async) {
  if (!ordered(cell.writer, cell.write_clock, t)) {
    report("write-after-write race", p, cell.writer, cell.write_site, "write", t, site);
  }
  if (cell.readers >= 0) {
    const Clock& table = state.tables[cell.readers];
    const Clock& mine = state.clocks[t];
    std::uint32_t late = 0;
    for (int i = 0; i < state.threads; ++i) late |= table[i] > mine[i];
    if (late) {
      for (int i = 0; i < state.threads; ++i) {
        if (table[i] > mine[i] && i != t) {
          report("write-after-read race", p, i, cell.read_site, "read", t, site);
        }
      }
    }
    state.free_tables.push_back(cell.readers);
    cell.readers = -1;
  } else if (!ordered(cell.reader, cell.read_clock, t)) {
    report("write-after-read race", p, cell.reader, cell.read_site, "read", t, site);
  }
  cell.reader = -1;
  cell.writer = static_cast<std::int16_t>(t);
  cell.write_clock = state.clocks[t][t];
  cell.write_site = site;
  cell.async_write = async;
}

void touch(int t, const void* p, std::size_t bytes, bool is_write, const Site& site, bool async) {
  const auto offset = static_cast<std::size_t>(static_cast<const char*>(p) - state.window);
  // Single bytes are not tracked: a cell holds two, which different threads may write.
  if (offset >= state.bytes || bytes < 2) return;
  const std::size_t end = std::min(state.bytes, offset + bytes);
  for (std::size_t i = offset / 2; i < (end + 1) / 2; ++i) {
    if (is_write) {
      write(state.cells[i], p, t, site, async);
    } else {
      read(state.cells[i], p, t, site, async);
    }
  }
}

}  // namespace

bool enabled() {
  return state.active;
}

void begin_block(int threads, const char* window, std::size_t bytes) {
  state.active = state.enabled;
  if (!state.active) return;
  state.threads = threads;
  state.window = window;
  state.bytes = bytes;
  state.clocks.assign(threads, Clock(threads, 0));
  for (int i = 0; i < threads; ++i) state.clocks[i][i] = 1;
  state.fences.assign(threads, 0);
  state.cells.assign((bytes + 1) / 2, Cell());
  state.free_tables.resize(state.tables.size());
  for (std::size_t i = 0; i < state.tables.size(); ++i) state.free_tables[i] = static_cast<int>(i);
}

void end_block() {
  state.active = false;
}

void access(int thread, const void* p, std::size_t bytes, bool is_write, Where where, bool async) {
  if (state.active) touch(thread, p, bytes, is_write, {where, nullptr}, async);
}

void join(Clock& object, const Clock& other) {
  if (object.size() < other.size()) object.resize(other.size(), 0);
  for (std::size_t i = 0; i < other.size(); ++i) object[i] = std::max(object[i], other[i]);
}

void barrier(const int* threads, int count) {
  if (!state.active) return;
  static Clock joined;
  joined.assign(state.threads, 0);
  for (int i = 0; i < count; ++i) join(joined, state.clocks[threads[i]]);
  for (int i = 0; i < count; ++i) {
    Clock& clock = state.clocks[threads[i]];
    clock = joined;
    ++clock[threads[i]];
  }
}

void release(int thread, Clock& object) {
  if (!state.active) return;
  join(object, state.clocks[thread]);
  ++state.clocks[thread][thread];
}

void acquire(int thread, const Clock& object) {
  if (state.active) join(state.clocks[thread], object);
}

Clock snapshot(int thread) {
  if (!state.active) return {};
  Clock clock = state.clocks[thread];
  ++state.clocks[thread][thread];
  return clock;
}

void proxy_fence(int thread) {
  if (!state.active) return;
  state.fences[thread] = state.clocks[thread][thread];
  ++state.clocks[thread][thread];
}

/// From the compiler's hooks below.
void hook(const void* p, std::size_t bytes, bool is_write, const void* code) {
  if (state.active) touch(self(), p, bytes, is_write, {{nullptr, 0}, code}, false);
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
