// Runs a grid: blocks one after another, a fiber per thread, one of them at a time until it blocks.
// Owns the shared-memory window, the modes, error and deadlock reports.
#include <algorithm>
#include <bit>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#include "kernels/xpu/emu/core.h"
#include "kernels/xpu/emu/fault.h"
#include "kernels/xpu/emu/fiber.h"
#include "kernels/xpu/emu/race.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define XPU_POISON(p, n) __asan_poison_memory_region(p, n)
#define XPU_UNPOISON(p, n) __asan_unpoison_memory_region(p, n)
#else
#define XPU_POISON(p, n) (void)(p)
#define XPU_UNPOISON(p, n) (void)(p)
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace xpu::emu {

namespace {

// The red zones after static arrays are not the kernel's, so the window is larger than the limit.
// It ends where the 18-bit addresses of wgmma descriptors end.
constexpr std::size_t kWindowBytes = 256 * 1024;
constexpr std::size_t kStaticLimit = 48 * 1024;  // more must be dynamic
constexpr std::size_t kRedZone = 64;             // poisoned bytes after each static array
constexpr int kMaxThreads = 1024;

struct StaticArray {
  const void* key;
  std::size_t offset;
};

struct Thread {
  std::unique_ptr<Fiber> fiber;
  uint3 index{};  // threadIdx
  const char* waits_for = nullptr;
  Where where{};
};

struct Abandoned {
};  // unwinds the thread or the deferred effect that failed; other threads just stay

struct Machine {
  bool in_fiber = false;
  Mode mode;
  std::mt19937_64 random;
  Counters counters;
  std::vector<Thread> threads;                    // grows, never shrinks
  std::uint64_t runnable[kMaxThreads / 64] = {};  // one bit per thread
  unsigned live[kMaxThreads / 32] = {};           // per warp, one bit per thread that has not exited
  int count = 0, alive = 0, current = -1;
  bool failed = false;
  std::string error;
  std::vector<std::function<void()>> deferred;
  char* window = nullptr;
  std::size_t dynamic_bytes = 0, static_bytes = 0;
  std::size_t used = 0;  // end of what the window holds, with red zones
  std::vector<StaticArray> statics;
  void (*body)(const void*) = nullptr;
  const void* args = nullptr;
  std::string_view kernel;
};

Machine the_machine;  // not a local static: those are checked at each of a million calls
Machine& machine() {
  return the_machine;
}

/// What shared memory holds until it is written: a NaN in bf16, fp16, fp32 and fp64.
void fill_with_nan(char* p, std::size_t bytes) {
  std::fill_n(p, bytes, '\xff');
}

int pick(Machine& m) {
  const int words = (m.count + 63) / 64;
  if (m.mode.order == Order::kReverse) {
    for (int w = words - 1; w >= 0; --w) {
      if (m.runnable[w]) return w * 64 + 63 - std::countl_zero(m.runnable[w]);
    }
  }
  const int start = m.mode.order == Order::kRandom ? static_cast<int>(m.random() % m.count) : 0;
  for (int i = 0; i <= words; ++i) {
    const int w = (start / 64 + i) % words;
    std::uint64_t bits = m.runnable[w];
    if (i == 0) bits &= ~std::uint64_t{0} << (start % 64);
    if (bits) return w * 64 + std::countr_zero(bits);
  }
  return -1;
}

void run_deferred(Machine& m, std::size_t index) {
  auto effect = std::move(m.deferred[index]);
  m.deferred.erase(m.deferred.begin() + static_cast<std::ptrdiff_t>(index));
  try {
    effect();
  } catch (const Abandoned&) {
  }
}

/// Copies may overtake each other: in reverse order the newest is the first.
std::size_t first_to_finish(Machine& m) {
  if (m.mode.async == Async::kRandom) return m.random() % m.deferred.size();
  return m.mode.order == Order::kReverse ? m.deferred.size() - 1 : 0;
}

std::string deadlock_report(const Machine& m) {
  std::map<std::string, std::vector<int>> waits;
  for (int i = 0; i < m.count; ++i) {
    const Thread& t = m.threads[i];
    if (m.live[i / 32] >> i % 32 & 1) {
      waits[std::string(t.waits_for) + " at " + describe(t.where)].push_back(i);
    }
  }
  std::string text = "deadlock: no thread can run";
  if (m.alive < m.count) text += "; " + std::to_string(m.count - m.alive) + " have exited";
  for (const auto& [what, who] : waits) {
    text += "; " + std::to_string(who.size()) + " wait in " + what +
            " (first: " + thread_name(who.front()) + ")";
  }
  return text;
}

void thread_main() {
  Machine& m = machine();
  Thread& t = m.threads[m.current];
  try {
    m.body(m.args);
    --m.alive;
    m.live[m.current / 32] &= ~(1u << m.current % 32);
    m.runnable[m.current / 64] &= ~(std::uint64_t{1} << (m.current % 64));
    finish_stores(m.current);
    on_thread_exit(m.current);
  } catch (const Abandoned&) {
  }
  t.fiber->leave_for_good();
}

void record_failure(Machine& m, Where where, const std::string& message) {
  if (m.failed) return;
  m.failed = true;
  m.error = (where.file ? describe(where) + ": " : "") + message;
}

void schedule(Machine& m) {
  while (!m.failed) {
    if (m.mode.async == Async::kRandom && !m.deferred.empty() && m.random() % 4 == 0) {
      run_deferred(m, m.random() % m.deferred.size());
      if (m.failed) return;
    }
    const int next = pick(m);
    if (next < 0) {
      if (!m.deferred.empty() && m.alive > 0) {
        run_deferred(m, first_to_finish(m));
        continue;
      }
      if (m.alive > 0) {
        m.failed = true;
        m.error = deadlock_report(m);
      }
      return;
    }
    m.current = next;
    threadIdx = m.threads[next].index;
    ++m.counters.switches;
    m.in_fiber = true;
    m.threads[next].fiber->resume();
    m.in_fiber = false;
  }
}

void run_block(Machine& m) {
  std::fill(std::begin(m.runnable), std::end(m.runnable), 0);
  std::fill(std::begin(m.live), std::end(m.live), 0);
  for (int i = 0; i < m.count; ++i) {
    m.threads[i].fiber->prepare(thread_main);
    m.runnable[i / 64] |= std::uint64_t{1} << (i % 64);
    m.live[i / 32] |= 1u << i % 32;
  }
  m.alive = m.count;
  m.deferred.clear();
  m.statics.clear();
  m.static_bytes = 0;
  m.used = (m.dynamic_bytes + 15) / 16 * 16 + (m.dynamic_bytes % 16 ? 0 : kRedZone);
  XPU_UNPOISON(m.window, kWindowBytes);
  fill_with_nan(m.window, m.used);
  XPU_POISON(m.window + m.dynamic_bytes, kWindowBytes - m.dynamic_bytes);
  reset_threads();
  reset_async_copies();
  reset_mbarriers();
  reset_wgmma();
  race::begin_block(m.count, m.window, kWindowBytes);
  schedule(m);
  if (!m.failed && !m.deferred.empty()) {
    m.failed = true;
    m.error =
        "the block ended with " + std::to_string(m.deferred.size()) + " copies still in flight";
  }
  race::end_block();
  XPU_UNPOISON(m.window, kWindowBytes);
}

}  // namespace

int self() {
  return machine().current;
}
int block_threads() {
  return machine().count;
}
Fiber* running_fiber() {
  Machine& m = machine();
  return m.in_fiber ? m.threads[m.current].fiber.get() : nullptr;
}

std::string running_place() {
  return std::string(machine().kernel) + ", block (" + std::to_string(blockIdx.x) + "," +
         std::to_string(blockIdx.y) + "," + std::to_string(blockIdx.z) + "), " +
         thread_name(machine().current);
}

int live_threads() {
  return machine().alive;
}
unsigned live_lanes(int warp) {
  return machine().live[warp];
}

std::string describe(Where where) {
  std::string file = where.file ? where.file : "?";
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(where.line);
}

std::string thread_name(int thread) {
  return "thread " + std::to_string(thread) + " (warp " + std::to_string(warp_of(thread)) +
         " lane " + std::to_string(lane_of(thread)) + ")";
}

void fail(Where where, const std::string& message) {
  record_failure(machine(), where, message);
  throw Abandoned();
}

void fail_in_place(Where where, const std::string& message) {
  Machine& m = machine();
  record_failure(m, where, message);
  if (!m.in_fiber) throw Abandoned();
  m.threads[m.current].fiber->leave_for_good();
}

void sleep(const char* what, Where where) {
  Machine& m = machine();
  Thread& t = m.threads[m.current];
  t.waits_for = what;
  t.where = where;
  m.runnable[m.current / 64] &= ~(std::uint64_t{1} << (m.current % 64));
  t.fiber->leave();
}

void wake(int thread) {
  machine().runnable[thread / 64] |= std::uint64_t{1} << (thread % 64);
}

bool perform_now() {
  Machine& m = machine();
  if (m.mode.async == Async::kRandom) return m.random() % 2 == 0;
  return m.mode.async == Async::kEarly;
}

void defer(std::function<void()> effect) {
  machine().deferred.push_back(std::move(effect));
}

void* dynamic_shared() {
  return machine().window;
}

void* static_shared(const void* key, const char* name, std::size_t bytes, std::size_t alignment) {
  Machine& m = machine();
  for (const StaticArray& array : m.statics) {
    if (array.key == key) return m.window + array.offset;
  }
  m.static_bytes = (m.static_bytes + alignment - 1) / alignment * alignment + bytes;
  const std::size_t offset = (m.used + alignment - 1) / alignment * alignment;
  if (m.static_bytes > kStaticLimit) {
    fail({nullptr, 0}, std::string(name) + ": expected at most " + std::to_string(kStaticLimit) +
                           " bytes of static shared memory, got " + std::to_string(m.static_bytes));
  }
  if (m.dynamic_bytes + m.static_bytes > kMaxSharedBytes || offset + bytes > kWindowBytes) {
    fail({nullptr, 0}, std::string(name) + ": expected at most " + std::to_string(kMaxSharedBytes) +
                           " bytes of shared memory, got " + std::to_string(m.dynamic_bytes) +
                           " dynamic and " + std::to_string(m.static_bytes) + " static");
  }
  XPU_UNPOISON(m.window + offset, bytes);
  fill_with_nan(m.window + offset, bytes);
  m.used = offset + bytes + kRedZone;
  m.statics.push_back({key, offset});
  return m.window + offset;
}

std::uint32_t shared_address(const void* p, std::size_t bytes, std::size_t alignment,
                             const char* what, Where where) {
  Machine& m = machine();
  const auto offset = static_cast<std::size_t>(static_cast<const char*>(p) - m.window);
  if (offset >= kWindowBytes || offset + bytes > m.used) {
    fail(where, std::string(what) + ": the address is not in the block's shared memory");
  }
  if (offset % alignment) {
    fail(where, std::string(what) + ": shared address " + std::to_string(offset) +
                    " is not a multiple of " + std::to_string(alignment));
  }
#if defined(__SANITIZE_ADDRESS__)
  if (__asan_region_is_poisoned(const_cast<void*>(p), bytes)) {
    fail(where, std::string(what) + ": reaches past the end of a shared array");
  }
#endif
  return static_cast<std::uint32_t>(offset);
}

char* shared_pointer(std::uint32_t address, std::size_t bytes, const char* what, Where where) {
  char* p = machine().window + address;
  shared_address(p, bytes, 1, what, where);
  return p;
}

void set_mode(const Mode& mode) {
  machine().mode = mode;
}
Counters counters() {
  return machine().counters;
}
Counters& mutable_counters() {
  return machine().counters;
}
void reset_counters() {
  machine().counters = {};
}

void run_grid(std::string_view name, const LaunchConfig& config, void (*body)(const void*),
              const void* args) {
  // Streams of several threads take turns; recursive, so that a kernel that launches another is told so below.
  static std::recursive_mutex turn;
  const std::lock_guard lock(turn);
  Machine& m = machine();
  const auto blocks = static_cast<long>(config.grid.x) * config.grid.y * config.grid.z;
  const auto threads = static_cast<long>(config.block.x) * config.block.y * config.block.z;
  const std::string problem = launch_problem(config.grid, config.block, config.shared_bytes);
  if (!problem.empty()) throw Error(std::string(name) + ": " + problem);
  if (m.in_fiber) fail({nullptr, 0}, "a kernel launches " + std::string(name));
  if (!m.window) m.window = static_cast<char*>(std::aligned_alloc(1024, kWindowBytes));
  while (static_cast<long>(m.threads.size()) < threads) {
    m.threads.emplace_back();
    m.threads.back().fiber = std::make_unique<Fiber>(static_cast<int>(m.threads.size()));
  }
  m.random.seed(m.mode.seed);
  m.count = static_cast<int>(threads);
  m.dynamic_bytes = config.shared_bytes;
  m.body = body;
  m.args = args;
  m.kernel = name;
  m.failed = false;
  gridDim = config.grid;
  blockDim = config.block;
  for (unsigned i = 0; i < threads; ++i) {
    m.threads[i].index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
  }
  const FaultGuard faults;
  race::begin_grid();

  std::vector<long> order(static_cast<std::size_t>(blocks));
  for (long i = 0; i < blocks; ++i) order[i] = i;
  if (m.mode.order == Order::kReverse) std::reverse(order.begin(), order.end());
  if (m.mode.order == Order::kRandom) std::shuffle(order.begin(), order.end(), m.random);
  for (long block : order) {
    const auto b = static_cast<unsigned long>(block);
    blockIdx = {static_cast<unsigned>(b % gridDim.x),
                static_cast<unsigned>(b / gridDim.x % gridDim.y),
                static_cast<unsigned>(b / (static_cast<unsigned long>(gridDim.x) * gridDim.y))};
    run_block(m);
    if (m.failed) {
      const bool everyone = m.error.starts_with("deadlock") || m.error.starts_with("the block");
      std::string place = running_place();
      if (everyone) place.resize(place.rfind(", thread"));
      throw Error(place + ": " + m.error);
    }
  }
}

}  // namespace xpu::emu

namespace xpu {

void* device_alloc(std::size_t bytes) {
  void* p = std::malloc(bytes ? bytes : 1);
  if (!p) throw std::bad_alloc();
  memset(p, 0xff, bytes);
  emu::race::add_memory(p, bytes);
  return p;
}
void device_free(void* p) {
  emu::race::remove_memory(p);
  std::free(p);
}
void copy_in(void* device, const void* host, std::size_t bytes) {
  if (bytes) memcpy(device, host, bytes);
}
void copy_out(void* host, const void* device, std::size_t bytes) {
  if (bytes) memcpy(host, device, bytes);
}

}  // namespace xpu
