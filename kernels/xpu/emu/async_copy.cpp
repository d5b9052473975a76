// Emulated cp.async. A copy that is not performed at once leaves NaNs at its destination until the
// wait that covers its group.
#include "kernels/xpu/emu/async_copy.h"

#include <deque>
#include <vector>

#include "kernels/xpu/emu/core.h"
#include "kernels/xpu/emu/race.h"

namespace xpu {

namespace emu {

namespace {

struct Copy {
  void* shared;
  const void* global;
  int bytes;
  bool valid;
  Where where;
};
struct Queue {
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;
};
std::vector<Queue> queues;  // per thread

void perform(const Copy& c) {
  if (c.valid) {
    memcpy(c.shared, c.global, c.bytes);
  } else {
    memset(c.shared, 0, c.bytes);
  }
}

}  // namespace

void reset_async_copies() { queues.assign(block_threads(), {}); }

void copy_async(void* shared, const void* global, int bytes, bool valid, Where where) {
  shared_address(shared, bytes, bytes, "copy_async", where);
  if (valid && reinterpret_cast<std::uintptr_t>(global) % bytes) {
    fail(where, "copy_async: global address is not a multiple of " + std::to_string(bytes));
  }
  if (valid) race::access(self(), global, bytes, false, where);
  race::access(self(), shared, bytes, true, where);
  const Copy copy{shared, global, bytes, valid, where};
  if (perform_now()) {
    perform(copy);
  } else {
    memset(shared, 0xff, bytes);
    queues[self()].open.push_back(copy);
  }
}

void copy_async_wait(int pending) {
  auto& groups = queues[self()].groups;
  while (static_cast<int>(groups.size()) > pending) {
    for (const Copy& copy : groups.front()) perform(copy);
    groups.pop_front();
  }
}

}  // namespace emu

void copy_async_commit() {
  auto& queue = emu::queues[emu::self()];
  queue.groups.push_back(std::move(queue.open));
  queue.open.clear();
}

}  // namespace xpu
