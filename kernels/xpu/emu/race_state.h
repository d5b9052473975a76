// What the files of the race detector share: its state, places in the source, shadow cells, the
// report.
#pragma once
#include <array>
#include <string>

#include "kernels/xpu/emu/core.h"
#include "kernels/xpu/emu/race.h"

namespace xpu::emu::race {

/// A wrapper's caller, or the return address of an instrumented instruction: in eight bytes, because
/// every cell has two. Pointers of user space have 48 bits.
class Site {
 public:
  Site() = default;
  explicit Site(Where where)
      : bits_(kWhere | static_cast<std::uint64_t>(where.line) << 48 |
              reinterpret_cast<std::uint64_t>(where.file)) {}
  explicit Site(const void* code) : bits_(reinterpret_cast<std::uint64_t>(code)) {}

  bool operator==(const Site&) const = default;
  auto operator<=>(const Site&) const = default;
  /// The wrapper's caller; without a file for an instruction.
  Where where() const {
    if (!(bits_ & kWhere)) return {nullptr, 0};
    return {reinterpret_cast<const char*>(bits_ & kPointer),
            static_cast<int>(bits_ >> 48 & 0x7fff)};
  }
  std::string describe() const;  // "rms_norm.cu:41"

 private:
  static constexpr std::uint64_t kWhere = std::uint64_t{1} << 63;
  static constexpr std::uint64_t kPointer = (std::uint64_t{1} << 48) - 1;
  std::uint64_t bits_ = 0;
};

struct State {
  bool enabled = false, active = false;
  int block = 0, threads = 0;
  const char* window = nullptr;  // shared memory
  std::size_t bytes = 0;
  std::vector<Clock> clocks;  // per thread
  Progress proxy_fences;      // clock of each thread's last one
};
extern State state;

/// While the detector works. The linker may have taken an instrumented copy of a template that the
/// detector uses itself.
class Pause {
 public:
  Pause() { state.active = false; }
  ~Pause() { state.active = true; }
  Pause(const Pause&) = delete;
  Pause& operator=(const Pause&) = delete;
};

Blocks joined(const Blocks& a, const Blocks& b);

/// Abandons the block. memory: "shared memory at byte 12"; earlier: "write by thread 3".
[[noreturn]] void report(const char* kind, const std::string& memory, int thread, const Site& site,
                         const std::string& earlier, const Site& earlier_site);

/// Shadow cells hold two bytes. One whose bytes are accessed one by one is split for the rest of
/// its life: Cell::split is then the index of its halves.
template <class Cell>
class Splits {
 public:
  void clear() { halves_.clear(); }

  /// visit(cell, address) for all cells of [begin, end); cell_of(address) finds one by its even
  /// address, detach(cell) gives a copy of a cell what the two may not share.
  template <class CellOf, class Detach, class Visit>
  void walk(std::uintptr_t begin, std::uintptr_t end, const CellOf& cell_of, const Detach& detach,
            const Visit& visit) {
    for (std::uintptr_t at = begin & ~std::uintptr_t{1}; at < end; at += 2) {
      Cell& cell = cell_of(at);
      const bool first = at >= begin, second = at + 1 < end;
      if (cell.split < 0) {
        if (first && second) {
          visit(cell, at);
          continue;
        }
        halves_.push_back({cell, cell});
        detach(halves_.back()[1]);
        cell.split = static_cast<int>(halves_.size()) - 1;
      }
      if (first) visit(halves_[cell.split][0], at);
      if (second) visit(halves_[cell.split][1], at + 1);
    }
  }

 private:
  std::vector<std::array<Cell, 2>> halves_;
};

// Of the two kinds of memory.
void reset_shared();
void access_shared(int thread, std::size_t offset, std::size_t bytes, bool write, Site site,
                   bool async_proxy);
void access_global(int thread, std::uintptr_t address, std::size_t bytes, bool write, Site site);

}  // namespace xpu::emu::race
