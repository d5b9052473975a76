// Emulated barriers and warp collectives. A collective completes when every live lane of its mask
// has called it with the same mask; anything else that lanes of the mask do is an error.
#include "kernels/xpu/emu/threads.h"

#include <vector>

#include "kernels/xpu/emu/collective.h"
#include "kernels/xpu/emu/core.h"
#include "kernels/xpu/emu/race.h"

namespace xpu::emu {

namespace {

struct Pending {
  const char* name;
  unsigned mask, arrived;
  Where where;
  Combine combine;
  void* args[32];
};

/// sync_block's: threads arrive one by one.
struct BlockBarrier {
  std::vector<int> arrived;
  std::vector<Where> places;
};

/// A named barrier counts whole warps, as the hardware does.
struct NamedBarrier {
  int arrived = 0, expected = 0;  // threads
  std::uint64_t completed = 0;    // times
  std::vector<int> waiting;
  race::Clock gathering, released;  // of those that arrived; of the last completion
};

std::vector<std::vector<Pending>> pending;  // per warp
BlockBarrier block_barrier;
NamedBarrier named_barriers[16];

/// Runs the collective when nobody is missing any more.
void complete_if_ready(int warp, std::size_t index) {
  Pending& p = pending[warp][index];
  if ((p.mask & live_lanes(warp)) & ~p.arrived) return;
  const Pending done = p;
  pending[warp].erase(pending[warp].begin() + static_cast<std::ptrdiff_t>(index));
  done.combine(const_cast<void**>(done.args), done.arrived, warp, done.where);
  for (int lane = 0; lane < 32; ++lane) {
    if (done.arrived >> lane & 1) wake(warp * 32 + lane);
  }
}

/// The lanes of a warp must wait at one barrier of the source, not at two.
void check_same_place(const BlockBarrier& b) {
  Where first[32];
  int owner[32];
  unsigned seen = 0;
  for (std::size_t i = 0; i < b.arrived.size(); ++i) {
    const int warp = warp_of(b.arrived[i]);
    if (!(seen >> warp & 1)) {
      seen |= 1u << warp;
      first[warp] = b.places[i];
      owner[warp] = b.arrived[i];
    } else if (first[warp] != b.places[i]) {
      fail(b.places[i], "divergent barrier: " + thread_name(b.arrived[i]) + " is here, but " +
                            thread_name(owner[warp]) + " is in the barrier at " +
                            describe(first[warp]));
    }
  }
}

/// Opens the barrier when every thread that has not exited is there.
void complete_block_barrier() {
  BlockBarrier& b = block_barrier;
  if (b.arrived.empty() || static_cast<int>(b.arrived.size()) < live_threads()) return;
  check_same_place(b);
  race::barrier(b.arrived.data(), static_cast<int>(b.arrived.size()));
  for (int t : b.arrived) wake(t);
  b = BlockBarrier();
}

struct NamedArgs {
  const char* what;
  int id, threads;
  std::uint64_t completed;
};

/// One warp arrives.
void arrive_at_named(void** lanes, unsigned arrived, int warp, Where where) {
  NamedArgs* first = nullptr;
  for (int lane = 0; lane < 32; ++lane) {
    if (!lanes[lane]) continue;
    auto* mine = static_cast<NamedArgs*>(lanes[lane]);
    if (!first) first = mine;
    if (mine->id != first->id || mine->threads != first->threads) {
      fail(where, std::string(mine->what) + ": lanes of one warp disagree on barrier or count");
    }
  }
  if (arrived != ~0u) {
    fail(where, std::string(first->what) + ": needs all 32 lanes of the warp, " +
                    "because the hardware counts whole warps");
  }
  NamedBarrier& b = named_barriers[first->id];
  if (b.arrived == 0) b.expected = first->threads;
  if (b.expected != first->threads) {
    fail(where, std::string(first->what) + " " + std::to_string(first->id) + " for " +
                    std::to_string(first->threads) + " threads, but others use it for " +
                    std::to_string(b.expected));
  }
  for (int lane = 0; lane < 32; ++lane) {
    static_cast<NamedArgs*>(lanes[lane])->completed = b.completed;
    race::release(warp * 32 + lane, b.gathering);
  }
  b.arrived += 32;
  if (b.arrived < b.expected) return;
  b.arrived = 0;
  ++b.completed;
  b.released = b.gathering;
  for (int t : b.waiting) wake(t);
  b.waiting.clear();
}

void named(const char* what, int id, int threads, bool wait, Where where) {
  if (id < 1 || id > 15 || threads < 32 || threads % 32) {
    fail(where, std::string(what) +
                    ": expected a barrier of 1..15 and threads in whole warps, got " +
                    std::to_string(id) + " and " + std::to_string(threads));
  }
  NamedArgs args{what, id, threads, 0};
  collective(what, ~0u, &args, arrive_at_named, where, true);
  if (!wait) return;
  NamedBarrier& b = named_barriers[id];
  if (b.completed == args.completed) {
    b.waiting.push_back(self());
    sleep(what, where);
  }
  race::acquire(self(), b.released);
}

template <class T>
T add(T* p, T x, Where where) {
  if (reinterpret_cast<std::uintptr_t>(p) % sizeof(T)) {
    fail(where, "atomic_add: the address is not a multiple of " + std::to_string(sizeof(T)));
  }
  race::atomic(self(), p, sizeof(T), where);
  const T old = *p;
  *p += x;
  return old;
}

}  // namespace

void collective(const char* name, unsigned mask, void* args, Combine combine, Where where,
                bool aligned) {
  const int t = self(), warp = warp_of(t);
  const unsigned bit = 1u << lane_of(t);
  if (!(mask & bit)) {
    fail(where,
         std::string(name) + ": lane " + std::to_string(lane_of(t)) + " is not in its own mask");
  }
  auto& list = pending[warp];
  std::size_t index = list.size();
  for (std::size_t i = 0; i < list.size(); ++i) {
    Pending& p = list[i];
    if (!(p.mask & bit)) continue;
    const bool same = p.mask == mask && p.name == name && (!aligned || p.where == where);
    // Lanes outside this call's mask may wait for this lane elsewhere: it comes there later.
    if (!same && !aligned && !(p.arrived & mask)) continue;
    if (!same) {
      fail(where, "divergent warp: lane " + std::to_string(lane_of(t)) + " calls " + name +
                      " while other lanes of its mask wait for it in " + p.name + " at " +
                      describe(p.where));
    }
    index = i;
  }
  if (index == list.size()) list.push_back({name, mask, 0, where, combine, {}});
  list[index].arrived |= bit;
  list[index].args[lane_of(t)] = args;
  if ((mask & live_lanes(warp)) & ~list[index].arrived) {
    sleep(name, where);
  } else {
    complete_if_ready(warp, index);
  }
}

void reset_threads() {
  pending.assign((block_threads() + 31) / 32, {});
  block_barrier = BlockBarrier();
  for (NamedBarrier& b : named_barriers) b = NamedBarrier();
}

void on_thread_exit(int thread) {
  const int warp = warp_of(thread);
  for (std::size_t i = pending[warp].size(); i-- > 0;) complete_if_ready(warp, i);
  complete_block_barrier();
}

std::uint64_t shuffle(Shuffle kind, std::uint64_t bits, int operand, unsigned mask, Where where) {
  struct Args {
    Shuffle kind;
    int operand;
    std::uint64_t in, out;
  } args{kind, operand, bits, 0};
  collective(
      "shuffle", mask, &args,
      [](void** lanes, unsigned arrived, int, Where place) {
        for (int lane = 0; lane < 32; ++lane) {
          if (!lanes[lane]) continue;
          auto& a = *static_cast<Args*>(lanes[lane]);
          int source = a.operand & 31;
          if (a.kind == Shuffle::kXor) source = lane ^ a.operand;
          if (a.kind == Shuffle::kUp) source = lane - a.operand < 0 ? lane : lane - a.operand;
          if (a.kind == Shuffle::kDown) source = lane + a.operand > 31 ? lane : lane + a.operand;
          if (source > 31 || !(arrived >> source & 1)) {
            fail(place, "shuffle: lane " + std::to_string(lane) + " reads lane " +
                            std::to_string(source) + ", which takes no part");
          }
          a.out = static_cast<Args*>(lanes[source])->in;
        }
      },
      where, false);
  return args.out;
}

void check_aligned(const void* p, std::size_t bytes, bool write, Where where) {
  if (reinterpret_cast<std::uintptr_t>(p) % bytes) {
    fail(where, std::string(write ? "store" : "load") + " of " + std::to_string(bytes) +
                    " bytes at an address that is not a multiple of " + std::to_string(bytes));
  }
}

float atomic_add(float* p, float x, Where where) { return add(p, x, where); }
int atomic_add(int* p, int x, Where where) { return add(p, x, where); }
unsigned atomic_add(unsigned* p, unsigned x, Where where) { return add(p, x, where); }

}  // namespace xpu::emu

namespace xpu {

using namespace emu;

void sync_block(Where where) {
  block_barrier.arrived.push_back(self());
  block_barrier.places.push_back(where);
  if (static_cast<int>(block_barrier.arrived.size()) < live_threads()) {
    sleep("sync_block", where);
  } else {
    complete_block_barrier();
  }
}

void named_sync(int id, int threads, Where where) {
  named("named_sync", id, threads, true, where);
}

void named_arrive(int id, int threads, Where where) {
  named("named_arrive", id, threads, false, where);
}

void fence_device() { race::device_fence(self()); }

void sync_warp(unsigned mask, Where where) {
  collective(
      "sync_warp", mask, nullptr,
      [](void**, unsigned arrived, int warp, Where) {
        int members[32], count = 0;
        for (int lane = 0; lane < 32; ++lane) {
          if (arrived >> lane & 1) members[count++] = warp * 32 + lane;
        }
        race::barrier(members, count);
      },
      where, false);
}

unsigned ballot(bool x, unsigned mask, Where where) {
  struct Args {
    bool in;
    unsigned out;
  } args{x, 0};
  collective(
      "ballot", mask, &args,
      [](void** lanes, unsigned, int, Where) {
        unsigned bits = 0;
        for (int lane = 0; lane < 32; ++lane) {
          if (lanes[lane] && static_cast<Args*>(lanes[lane])->in) bits |= 1u << lane;
        }
        for (int lane = 0; lane < 32; ++lane) {
          if (lanes[lane]) static_cast<Args*>(lanes[lane])->out = bits;
        }
      },
      where, false);
  return args.out;
}

}  // namespace xpu
