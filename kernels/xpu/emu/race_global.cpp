// Shadow cells of global memory, for one launch, and the order that atomics give to blocks.
//
// All blocks of a launch run at once, in no order but this one: a thread sees what happened before
// a device fence, if an atomic after the fence was followed, at the same address, by an atomic and
// then a fence before the thread's access ("before" and "after" through the barriers of a block).
// That is the release and acquire pattern of the PTX memory model, which fences make cumulative.
//
// A cell knows its last write exactly, of its reads only the last one and the blocks of those
// before: so a thread may overwrite, unnoticed, what other threads of its own block still read,
// but nothing in order is ever reported.
#include <algorithm>
#include <tuple>
#include <unordered_map>

#include "kernels/xpu/emu/race_state.h"

namespace xpu::emu::race {

namespace {

struct Access {
  Site site;
  std::int32_t block = -1;
  std::uint32_t clock = 0;
  std::int16_t thread = -1;
  bool atomic = false;
};

constexpr std::int32_t kOutside = -2;  // Cell::split: no device memory

struct Cell {
  Access write, read;
  std::int32_t readers = -1;  // index of a ReaderList: blocks that read before the last one
  std::int32_t split = kOutside;
};

constexpr std::uintptr_t kPageBytes = 512;
using Page = std::array<Cell, kPageBytes / 2>;

/// Lists with the same history are the same list, so that a cell needs one index.
struct ReaderList {
  std::int32_t rest;
  std::int32_t block;
  Site site;
};

std::map<std::uintptr_t, std::size_t> memory;                      // allocations
std::unordered_map<std::uintptr_t, std::unique_ptr<Page>> pages;  // null: no device memory there
std::vector<std::unique_ptr<Page>> free_pages;
std::pair<std::uintptr_t, Page*> recent[256];  // by page number
Splits<Cell> splits;
std::vector<ReaderList> lists;
std::map<std::tuple<std::int32_t, std::int32_t, Site>, std::int32_t> known_lists;
std::unordered_map<std::uintptr_t, Blocks> atomics;  // what the atomics at an address released

/// The allocation that reaches into [begin, end), or the end of `memory`.
auto allocation_in(std::uintptr_t begin, std::uintptr_t end) {
  const auto next = memory.lower_bound(end);
  if (next == memory.begin()) return memory.end();
  const auto last = std::prev(next);
  return last->first + last->second > begin ? last : memory.end();
}

/// Neighbours of device memory belong to the emulator, whose templates may be instrumented, too.
void fill_page(Page& page, std::uintptr_t begin) {
  page.fill(Cell());
  const std::uintptr_t page_end = begin + kPageBytes;
  for (auto it = memory.lower_bound(page_end); it != memory.begin();) {
    --it;
    const std::uintptr_t end = std::min(it->first + it->second, page_end);
    if (end <= begin) break;
    for (std::uintptr_t at = std::max(it->first, begin); at < end; at = (at / 2 + 1) * 2) {
      page[at % kPageBytes / 2].split = -1;
    }
  }
}

Page* find_page(std::uintptr_t address) {
  const std::uintptr_t number = address / kPageBytes;
  auto& [key, page] = recent[number % std::size(recent)];
  if (key == number) return page;
  const auto [it, is_new] = pages.try_emplace(number);
  const std::uintptr_t begin = number * kPageBytes;
  if (is_new && allocation_in(begin, begin + kPageBytes) != memory.end()) {
    if (free_pages.empty()) free_pages.push_back(std::make_unique<Page>());
    it->second = std::move(free_pages.back());
    free_pages.pop_back();
    fill_page(*it->second, begin);
  }
  key = number;
  page = it->second.get();
  return page;
}

std::string name_of(int block) {
  const unsigned b = static_cast<unsigned>(block);
  return "block (" + std::to_string(b % gridDim.x) + "," +
         std::to_string(b / gridDim.x % gridDim.y) + "," +
         std::to_string(b / gridDim.x / gridDim.y) + ")";
}

[[noreturn]] void report_global(const char* kind, std::uintptr_t at, const std::string& earlier,
                                const Site& earlier_site, int thread, const Site& site) {
  std::string place = "global memory";
  if (const auto it = allocation_in(at, at + 1); it != memory.end()) {
    place += " at byte " + std::to_string(at - it->first) + " of a buffer of " +
             std::to_string(it->second);
  }
  report(kind, place, thread, site, earlier, earlier_site);
}

[[noreturn]] void report_global(const char* kind, std::uintptr_t at, const Access& earlier,
                                const char* verb, int thread, const Site& site) {
  std::string who = std::string(earlier.atomic ? "atomic" : verb) + " by ";
  if (earlier.block != state.block) who += name_of(earlier.block) + ", ";
  report_global(kind, at, who + thread_name(earlier.thread), earlier.site, thread, site);
}

bool acquired(int block, int t) {
  const Blocks& blocks = state.clocks[t].acquired;
  return blocks && blocks->count(block);
}

bool ordered(const Access& earlier, int t) {
  if (earlier.block < 0) return true;
  if (earlier.block == state.block) {
    return earlier.thread == t || earlier.clock <= state.clocks[t].threads[earlier.thread];
  }
  return acquired(earlier.block, t) &&
         earlier.clock <= (*state.clocks[t].acquired->at(earlier.block))[earlier.thread];
}

std::int32_t add_reader(std::int32_t rest, const Access& read) {
  static std::int32_t last = -1;  // neighbouring cells have the same history
  if (last >= 0 && last < static_cast<std::int32_t>(lists.size()) && lists[last].rest == rest &&
      lists[last].block == read.block && lists[last].site == read.site) {
    return last;
  }
  const auto [it, is_new] = known_lists.try_emplace({rest, read.block, read.site},
                                                    static_cast<std::int32_t>(lists.size()));
  if (is_new) lists.push_back({rest, read.block, read.site});
  return last = it->second;
}

void read(Cell& cell, std::uintptr_t at, const Access& now) {
  if (!ordered(cell.write, now.thread)) {
    report_global("read-after-write race", at, cell.write, "write", now.thread, now.site);
  }
  if (cell.read.block != now.block && !ordered(cell.read, now.thread)) {
    cell.readers = add_reader(cell.readers, cell.read);
  }
  cell.read = now;
}

void write(Cell& cell, std::uintptr_t at, const Access& now) {
  if (!(now.atomic && cell.write.atomic) && !ordered(cell.write, now.thread)) {
    report_global("write-after-write race", at, cell.write, "write", now.thread, now.site);
  }
  if (!ordered(cell.read, now.thread)) {
    report_global("write-after-read race", at, cell.read, "read", now.thread, now.site);
  }
  for (std::int32_t i = cell.readers; i >= 0; i = lists[i].rest) {
    if (!acquired(lists[i].block, now.thread)) {
      report_global("write-after-read race", at, "read by " + name_of(lists[i].block),
                    lists[i].site, now.thread, now.site);
    }
  }
  cell.write = now;
  cell.read = Access();
  cell.readers = -1;
}

void touch(std::uintptr_t address, std::size_t bytes, bool is_write, const Access& now) {
  const std::uintptr_t end = address + bytes;
  while (address < end) {
    const std::uintptr_t part = std::min(end, (address / kPageBytes + 1) * kPageBytes);
    if (Page* page = find_page(address)) {
      splits.walk(
          address, part,
          [page](std::uintptr_t at) -> Cell& { return (*page)[at % kPageBytes / 2]; },
          [](Cell&) {},
          [&](Cell& cell, std::uintptr_t at) {
            if (cell.split == kOutside) return;
            if (is_write) {
              write(cell, at, now);
            } else {
              read(cell, at, now);
            }
          });
    }
    address = part;
  }
}

Access access_now(int thread, Site site, bool is_atomic) {
  return {site, state.block, state.clocks[thread].threads[thread],
          static_cast<std::int16_t>(thread), is_atomic};
}

}  // namespace

void begin_grid() {
  if (!state.enabled) return;
  for (auto& [number, page] : pages) {
    if (page) free_pages.push_back(std::move(page));
  }
  pages.clear();
  std::fill(std::begin(recent), std::end(recent), std::pair<std::uintptr_t, Page*>());
  splits.clear();
  lists.clear();
  known_lists.clear();
  atomics.clear();
}

void add_memory(const void* p, std::size_t bytes) {
  memory[reinterpret_cast<std::uintptr_t>(p)] = bytes;
}

void remove_memory(const void* p) {
  memory.erase(reinterpret_cast<std::uintptr_t>(p));
}

void access_global(int t, std::uintptr_t address, std::size_t bytes, bool is_write, Site site) {
  touch(address, bytes, is_write, access_now(t, site, false));
}

void atomic(int t, const void* p, std::size_t bytes, Where where) {
  if (!state.active) return;
  const Pause pause;
  const auto offset = static_cast<std::size_t>(static_cast<const char*>(p) - state.window);
  if (offset < state.bytes) return;  // atomics of one block on its shared memory are not watched
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  touch(address, bytes, true, access_now(t, Site(where), true));

  // It reads what all atomics at this address before it wrote, and passes that on with its own.
  Clock& mine = state.clocks[t];
  Blocks& object = atomics[address];
  mine.read = joined(mine.read, object);
  object = joined(object, mine.acquired);
  if (mine.fenced.empty()) return;
  object = joined(object, std::make_shared<const BlockMap>(BlockMap{
                              {state.block, std::make_shared<const Progress>(mine.fenced)}}));
}

}  // namespace xpu::emu::race
