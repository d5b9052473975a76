// Device memory by best fit in one range of addresses per device and stream. Memory is put behind the range
// from its front as blocks reach further, so nothing fragments between segments and addresses repeat from step to step.
#include <algorithm>
#include <array>
#include <atomic>
#include <iterator>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "runtime/best_fit.h"
#include "runtime/gpu.h"
#include "runtime/gpu_arena.h"
#include "runtime/gpu_driver.h"
#include "runtime/memory_counters.h"

namespace lh::gpu {
namespace {

struct Block {
  size_t bytes;
  MemoryOwner owner;
  uint64_t serial;  // no two blocks of an arena have the same
};

class Arena {
 public:
  void* allocate(Device device, size_t bytes, MemoryOwner owner) {
    const std::lock_guard lock(mutex_);
    if (range_.base == nullptr) {
      range_ = reserve_addresses(device);
      free_.release(0, range_.bytes);
    }
    const size_t padded = std::max((bytes + kAlignment - 1) / kAlignment, size_t{1}) * kAlignment;
    const auto offset = free_.allocate(padded);
    if (!offset) return nullptr;
    if (*offset + padded > committed_)
      committed_ = commit(device, range_, committed_, *offset + padded);
    if (*offset + padded > committed_) {
      free_.release(*offset, padded);
      return nullptr;
    }
    live_[*offset] = {padded, owner, ++serial_};
    if (watching_) add_range(*offset, *offset + padded);
    return range_.base + *offset;
  }

  bool holds(const void* pointer) const {
    const std::lock_guard lock(mutex_);
    return pointer >= range_.base && pointer < range_.base + range_.bytes;
  }

  void release(void* pointer) {
    const std::lock_guard lock(mutex_);
    const auto found = live_.find(static_cast<size_t>(static_cast<char*>(pointer) - range_.base));
    free_.release(found->first, found->second.bytes);
    live_.erase(found);
  }

  void start_watch() {
    const std::lock_guard lock(mutex_);
    watching_ = true;
    use_ = {};
    watched_from_ = serial_;
  }

  ArenaUse stop_watch() {
    const std::lock_guard lock(mutex_);
    watching_ = false;
    for (const auto& [offset, block] : live_)
      if (block.serial > watched_from_) use_.alive[offset] = block.serial;
    return std::exchange(use_, {});
  }

  bool is_unchanged(const ArenaUse& use) const {
    const std::lock_guard lock(mutex_);
    size_t same = 0;
    for (const auto& [begin, end] : use.ranges) {
      auto block = live_.lower_bound(begin);
      if (block != live_.begin() && std::prev(block)->first + std::prev(block)->second.bytes > begin)
        return false;
      for (; block != live_.end() && block->first < end; ++block) {
        const auto known = use.alive.find(block->first);
        if (known == use.alive.end() || known->second != block->second.serial) return false;
        ++same;
      }
    }
    return same == use.alive.size();
  }

  std::string largest() const {
    const std::lock_guard lock(mutex_);
    std::vector<Block> blocks;
    for (const auto& [offset, block] : live_) blocks.push_back(block);
    std::sort(blocks.begin(), blocks.end(),
              [](const Block& a, const Block& b) { return a.bytes > b.bytes; });
    std::string text = "largest live blocks:";
    for (size_t i = 0; i < std::min<size_t>(5, blocks.size()); ++i)
      text += fmt::format(" {} ({})", format_bytes(static_cast<double>(blocks[i].bytes)),
                          memory_owner_name(blocks[i].owner));
    return text;
  }

 private:
  /// Adds [begin, end) to the watched ranges, merged with those it meets.
  void add_range(size_t begin, size_t end) {
    auto at = use_.ranges.upper_bound(begin);
    if (at != use_.ranges.begin() && std::prev(at)->second >= begin) --at;
    while (at != use_.ranges.end() && at->first <= end) {
      begin = std::min(begin, at->first);
      end = std::max(end, at->second);
      at = use_.ranges.erase(at);
    }
    use_.ranges[begin] = end;
  }

  mutable std::mutex mutex_;
  AddressRange range_;
  size_t committed_ = 0;
  BestFit free_;
  std::map<size_t, Block> live_;  // by offset
  uint64_t serial_ = 0, watched_from_ = 0;
  bool watching_ = false;
  ArenaUse use_;
};

thread_local int t_lane = 0;

Arena& arena(Device device, int of_lane = 0) {
  static auto* arenas = new std::array<std::array<Arena, kLanes>, 128>;  // outlive every static tensor
  return (*arenas)[static_cast<size_t>(device.index)][static_cast<size_t>(of_lane)];
}

}  // namespace

void start_watch(Device device) {
  arena(device).start_watch();
}

ArenaUse stop_watch(Device device) {
  return arena(device).stop_watch();
}

bool is_unchanged(Device device, const ArenaUse& use) {
  return arena(device).is_unchanged(use);
}

int lane() {
  return t_lane;
}

SideStream::SideStream(Device device) {
  make_current(device);  // a thread begins with device 0
  t_lane = 1;
}

SideStream::~SideStream() {
  t_lane = 0;
}

int capability(Device device) {
  static std::array<std::atomic<int>, 128> known{};
  std::atomic<int>& found = known[static_cast<size_t>(device.index)];
  if (found == 0) found = device_info(device).capability;
  return found;
}

void* allocate(Device device, size_t bytes, MemoryOwner owner) {
  void* pointer = arena(device, t_lane).allocate(device, bytes, owner);
  if (pointer == nullptr)
    fail("out of memory on {} ({}): {} requested for {}\n{}\n{}\nSmaller micro batches "
         "(schedule.micro_batch_tokens) or precision.recompute: block need less",
         device.str(), format_bytes(static_cast<double>(device_info(device).memory_bytes)),
         format_bytes(static_cast<double>(bytes)), memory_owner_name(owner),
         memory_report(DeviceKind::kCuda).table(), arena(device).largest());
  count_allocation(DeviceKind::kCuda, owner, static_cast<int64_t>(bytes));
  return pointer;
}

void release(Device device, void* pointer, size_t bytes, MemoryOwner owner) noexcept {
  Arena& main = arena(device);
  (main.holds(pointer) ? main : arena(device, 1)).release(pointer);
  count_allocation(DeviceKind::kCuda, owner, -static_cast<int64_t>(bytes));
}

}  // namespace lh::gpu
