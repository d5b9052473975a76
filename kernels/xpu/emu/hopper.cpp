// Emulated mbarriers and TMA. Waiters sleep until their phase completes, so a phase that never
// completes is a deadlock report. A copy that is not performed at once leaves NaNs behind.
#include "kernels/xpu/emu/hopper.h"

#include <algorithm>
#include <deque>
#include <map>
#include <vector>

#include "kernels/xpu/emu/collective.h"
#include "kernels/xpu/emu/core.h"
#include "kernels/xpu/emu/race.h"

namespace xpu {

namespace emu {

namespace {

struct Barrier {
  int count = 0, pending = 0;
  long bytes = 0;  // expected and not yet copied
  unsigned phase = 0;
  std::vector<int> waiting;
  race::Clock gathering, released;  // of arrivals in this phase; of the last completed phase
};

struct Store {
  TensorMap map;
  int x, y;
  const char* shared;
  Where where;
};
struct StoreQueue {
  std::vector<Store> open;
  std::deque<std::vector<Store>> groups;
};

std::map<std::uint32_t, Barrier> barriers;
std::vector<StoreQueue> stores;  // per thread

Barrier& find(Mbarrier* b, const char* what, Where where) {
  const auto it = barriers.find(shared_address(b, 8, 8, what, where));
  if (it == barriers.end()) fail(where, std::string(what) + ": this mbarrier is not initialised");
  return it->second;
}

void complete_if_ready(Barrier& b) {
  if (b.pending > 0 || b.bytes != 0) return;
  b.pending = b.count;
  ++b.phase;
  b.released = b.gathering;
  for (int t : b.waiting) wake(t);
  b.waiting.clear();
}

void arrive(Barrier& b, long bytes, const char* what, Where where) {
  if (b.pending == 0) {
    fail(where, std::string(what) + ": more arrivals than the mbarrier's count of " +
                    std::to_string(b.count) + " in one phase");
  }
  race::release(self(), b.gathering);
  b.bytes += bytes;
  --b.pending;
  complete_if_ready(b);
}

/// Calls piece(global or null when outside, shared, bytes) for the box's 16-byte chunks.
template <class Piece>
void walk(const TensorMap& map, int x, int y, char* shared, const Piece& piece) {
  const int row_bytes = map.box_columns * map.element_bytes;
  const int chunk = 16 / map.element_bytes;
  for (int r = 0; r < map.box_rows; ++r) {
    for (int c = 0; c < map.box_columns; c += chunk) {
      // The swizzle of rows of 128 bytes XORs bits 4-6 of the shared address with bits 7-9; that of
      // 64 bytes, bits 4-5 with bits 7-8.
      auto address = reinterpret_cast<std::uintptr_t>(shared) + r * row_bytes +
                     c * map.element_bytes;
      address ^= (address >> 7 & (row_bytes / 16 - 1)) << 4;
      const long row = static_cast<long>(y) + r, column = static_cast<long>(x) + c;
      int inside = 0;  // leading elements of the chunk within the tensor; x may be negative
      int skip = 0;
      if (row >= 0 && row < map.rows) {
        skip = column < 0 ? static_cast<int>(std::min<long>(chunk, -column)) : 0;
        const long end = std::min<long>(chunk, map.columns - column);
        inside = end > skip ? static_cast<int>(end) - skip : 0;
      }
      char* global = inside ? map.base + row * map.row_bytes + (column + skip) * map.element_bytes
                            : nullptr;
      piece(global, reinterpret_cast<char*>(address), skip * map.element_bytes,
            inside * map.element_bytes);
    }
  }
}

/// The copy engine reads or writes the box's part of the tensor.
void access_global(const TensorMap& map, int x, int y, bool write, Where where) {
  if (!race::enabled()) return;
  walk(map, x, y, nullptr, [=](char* global, char*, int, int bytes) {
    if (bytes) race::access(self(), global, bytes, write, where, true);
  });
}

void check_box(const TensorMap& map, const void* shared, const char* what, Where where) {
  const int bytes = map.box_rows * map.box_columns * map.element_bytes;
  shared_address(shared, bytes, 8 * map.box_columns * map.element_bytes, what, where);
}

void perform(const Store& s) {
  walk(s.map, s.x, s.y, const_cast<char*>(s.shared),
       [](char* global, char* shared, int skip, int bytes) {
         if (bytes) memcpy(global, shared + skip, bytes);
       });
}

}  // namespace

void reset_mbarriers() {
  barriers.clear();
  stores.assign(block_threads(), {});
}

void tma_store_wait(int pending) {
  auto& groups = stores[self()].groups;
  while (static_cast<int>(groups.size()) > pending) {
    for (const Store& s : groups.front()) perform(s);
    groups.pop_front();
  }
}

void finish_stores(int thread) {
  for (auto& group : stores[thread].groups) {
    for (const Store& s : group) perform(s);
  }
  stores[thread].groups.clear();
}

void set_registers(Where where) {
  collective(
      "setmaxnreg", ~0u, nullptr, [](void**, unsigned, int, Where) {}, where, true);
}

}  // namespace emu

using namespace emu;

TensorMap make_tensor_map(const void* base, int element_bytes, long rows, long columns,
                          long row_bytes, int box_rows, int box_columns) {
  const auto refuse = [](const char* why) { throw Error(std::string("make_tensor_map: ") + why); };
  if (element_bytes != 2 && element_bytes != 4) refuse("elements have 2 or 4 bytes");
  if (reinterpret_cast<std::uintptr_t>(base) % 16) refuse("base is not 16-byte aligned");
  if (row_bytes % 16 || row_bytes < columns * element_bytes) {
    refuse("row_bytes is not a multiple of 16 or shorter than a row");
  }
  if (rows < 1 || columns < 1) refuse("the matrix is empty");
  const int box_bytes = box_columns * element_bytes;
  if (box_rows < 1 || box_rows > 256 || (box_bytes != 128 && box_bytes != 64)) {
    refuse("a box has 1 to 256 rows of 64 or 128 bytes");
  }
  return {static_cast<char*>(const_cast<void*>(base)), rows, columns, row_bytes, element_bytes,
          box_rows, box_columns};
}

void mbarrier_init(Mbarrier* b, int arrivals, Where where) {
  const std::uint32_t address = shared_address(b, 8, 8, "mbarrier_init", where);
  if (arrivals < 1 || arrivals >= 1 << 20) fail(where, "mbarrier_init: 1 to 2^20-1 arrivals");
  race::access(self(), b, 8, true, where);
  Barrier& barrier = barriers[address];
  if (!barrier.waiting.empty()) fail(where, "mbarrier_init: threads wait on this mbarrier");
  barrier = Barrier();
  barrier.count = barrier.pending = arrivals;
}

void mbarrier_arrive(Mbarrier* b, Where where) {
  race::access(self(), b, 8, false, where);
  arrive(find(b, "mbarrier_arrive", where), 0, "mbarrier_arrive", where);
}

void mbarrier_arrive_expect(Mbarrier* b, int bytes, Where where) {
  race::access(self(), b, 8, false, where);
  arrive(find(b, "mbarrier_arrive_expect", where), bytes, "mbarrier_arrive_expect", where);
}

void mbarrier_wait(Mbarrier* b, int parity, Where where) {
  race::access(self(), b, 8, false, where);
  Barrier& barrier = find(b, "mbarrier_wait", where);
  if (parity != 0 && parity != 1) fail(where, "mbarrier_wait: parity is 0 or 1");
  const unsigned phase = barrier.phase;
  if (static_cast<int>(phase & 1) == parity) {
    barrier.waiting.push_back(self());
    sleep("mbarrier_wait", where);
    // A polling thread could see this parity incomplete again and hang.
    if (barrier.phase != phase + 1) fail(where, "mbarrier_wait: the mbarrier ran two phases ahead");
  }
  race::acquire(self(), barrier.released);
}

void fence_proxy_async() { race::proxy_fence(self()); }

void tma_load(void* shared, const TensorMap& map, int x, int y, Mbarrier* b, Where where) {
  check_box(map, shared, "tma_load", where);
  Barrier& barrier = find(b, "tma_load", where);
  const int thread = self();
  const int bytes = map.box_rows * map.box_columns * map.element_bytes;
  char* destination = static_cast<char*>(shared);
  access_global(map, x, y, false, where);
  race::access(thread, shared, bytes, true, where, true);
  auto effect = [=, &barrier, clock = race::snapshot(thread)] {
    walk(map, x, y, destination, [](char* global, char* to, int skip, int n) {
      memset(to, 0, 16);
      if (n) memcpy(to + skip, global, n);
    });
    race::join(barrier.gathering, clock);
    barrier.bytes -= bytes;
    complete_if_ready(barrier);
  };
  if (perform_now()) {
    effect();
  } else {
    memset(shared, 0xff, bytes);
    defer(std::move(effect));
  }
}

void tma_store(const TensorMap& map, int x, int y, const void* shared, Where where) {
  check_box(map, shared, "tma_store", where);
  race::access(self(), shared, map.box_rows * map.box_columns * map.element_bytes, false, where,
               true);
  access_global(map, x, y, true, where);
  const Store store{map, x, y, static_cast<const char*>(shared), where};
  if (perform_now()) {
    perform(store);
  } else {
    stores[self()].open.push_back(store);
  }
}

void tma_store_commit() {
  auto& queue = stores[self()];
  queue.groups.push_back(std::move(queue.open));
  queue.open.clear();
}

}  // namespace xpu
