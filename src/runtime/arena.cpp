#include "runtime/arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <mutex>

#include "base/error.h"
#include "base/math.h"
#include "base/text.h"
#include "runtime/best_fit.h"
#include "runtime/memory_counters.h"

#if defined(__SANITIZE_ADDRESS__)
#define LH_PLAIN_MALLOC 1  // exact-size heap blocks, so that the sanitizer sees overruns
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LH_PLAIN_MALLOC 1
#endif
#endif

namespace lh {
namespace {

/// Reserved addresses handed out by best fit.
class Arena {
 public:
  /// nullptr when neither the range nor the system has room.
  void* allocate(size_t bytes) {
    const std::lock_guard lock(mutex_);
    if (base_ == nullptr && !reserve()) return nullptr;
    const auto offset = blocks_.allocate(bytes);
    return offset ? base_ + *offset : nullptr;
  }

  void release(void* pointer, size_t bytes) {
    const std::lock_guard lock(mutex_);
    blocks_.release(static_cast<size_t>(static_cast<char*>(pointer) - base_), bytes);
  }

 private:
  /// Reserves addresses, not memory: pages are committed when first touched. Four times the
  /// physical memory leaves room for fragmentation; less is taken where limits forbid it.
  bool reserve() {
    const auto physical =
        static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
    for (size_t size = static_cast<size_t>(round_up(static_cast<int64_t>(4 * physical), kHuge));
         size >= kHuge; size = static_cast<size_t>(round_up(static_cast<int64_t>(size / 2), kHuge))) {
      void* range = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (range != MAP_FAILED) {
        madvise(range, size, MADV_HUGEPAGE);
        base_ = static_cast<char*>(range);
        blocks_.release(0, size);
        return true;
      }
      if (size == kHuge) break;
    }
    return false;
  }

  static constexpr int64_t kHuge = int64_t{2} << 20;
  std::mutex mutex_;
  char* base_ = nullptr;
  BestFit blocks_;
};

[[maybe_unused]] Arena& arena() {
  static auto* instance = new Arena;  // outlives every static tensor
  return *instance;
}

[[maybe_unused]] size_t padded(size_t bytes) {
  return static_cast<size_t>(
      round_up(static_cast<int64_t>(bytes == 0 ? 1 : bytes), kTensorAlignment));
}

}  // namespace

void* cpu_allocate(size_t bytes, MemoryOwner owner) {
#ifdef LH_PLAIN_MALLOC
  void* pointer = nullptr;
  if (posix_memalign(&pointer, kTensorAlignment, bytes == 0 ? 1 : bytes) != 0) pointer = nullptr;
#else
  void* pointer = arena().allocate(padded(bytes));
#endif
  if (pointer == nullptr)
    fail("out of memory: {} requested for {}\n{}", format_bytes(static_cast<double>(bytes)),
         memory_owner_name(owner), memory_report().table());
  count_allocation(DeviceKind::kCpu, owner, static_cast<int64_t>(bytes));
  return pointer;
}

void cpu_free(void* pointer, size_t bytes, MemoryOwner owner) noexcept {
#ifdef LH_PLAIN_MALLOC
  std::free(pointer);
#else
  arena().release(pointer, padded(bytes));
#endif
  count_allocation(DeviceKind::kCpu, owner, -static_cast<int64_t>(bytes));
}

}  // namespace lh
