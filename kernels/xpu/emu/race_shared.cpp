// Shadow cells of shared memory (FastTrack: Flanagan and Freund, PLDI 2009, with one clock entry
// per reader only while several threads read).
#include <algorithm>

#include "kernels/xpu/emu/race_state.h"

namespace xpu::emu::race {

namespace {

struct Cell {
  std::int16_t writer = -1, reader = -1;
  std::int32_t readers = -1;  // index of a table of the threads' reads, -1: at most one reader
  std::uint32_t write_clock = 0, read_clock = 0;
  std::int32_t split = -1;
  bool async_write = false;
  Site write_site, read_site;
};

std::vector<Cell> cells;
std::size_t touched = 0;  // cells in use by this block
Splits<Cell> splits;
std::vector<Progress> tables;
std::vector<int> free_tables;

[[noreturn]] void report_shared(const char* kind, std::uintptr_t offset, int earlier,
                                const Site& earlier_site, const char* verb, int thread,
                                const Site& site) {
  report(kind, "shared memory at byte " + std::to_string(offset), thread, site,
         std::string(verb) + " by " + thread_name(earlier), earlier_site);
}

bool ordered(int earlier, std::uint32_t clock, int now) {
  return earlier < 0 || earlier == now || clock <= state.clocks[now].threads[earlier];
}

int new_table() {
  if (free_tables.empty()) {
    free_tables.push_back(static_cast<int>(tables.size()));
    tables.emplace_back();
  }
  const int index = free_tables.back();
  free_tables.pop_back();
  return index;
}

void read(Cell& cell, std::uintptr_t at, int t, const Site& site, bool async) {
  if (!ordered(cell.writer, cell.write_clock, t)) {
    report_shared("read-after-write race", at, cell.writer, cell.write_site, "write", t, site);
  }
  if (async && !cell.async_write && cell.writer >= 0 &&
      state.proxy_fences[cell.writer] < cell.write_clock) {
    report_shared("missing fence_proxy_async", at, cell.writer, cell.write_site,
                  "fence after the write", t, site);
  }
  const std::uint32_t clock = state.clocks[t].threads[t];
  if (cell.readers < 0) {
    if (ordered(cell.reader, cell.read_clock, t)) {  // the last reader is covered by this one
      cell.reader = static_cast<std::int16_t>(t);
      cell.read_clock = clock;
      cell.read_site = site;
      return;
    }
    cell.readers = new_table();
    tables[cell.readers].assign(state.threads, 0);
    tables[cell.readers][cell.reader] = cell.read_clock;
  }
  tables[cell.readers][t] = clock;
  cell.read_site = site;
}

void write(Cell& cell, std::uintptr_t at, int t, const Site& site, bool async) {
  if (!ordered(cell.writer, cell.write_clock, t)) {
    report_shared("write-after-write race", at, cell.writer, cell.write_site, "write", t, site);
  }
  if (cell.readers >= 0) {
    const Progress& table = tables[cell.readers];
    const Progress& mine = state.clocks[t].threads;
    std::uint32_t late = 0;
    for (int i = 0; i < state.threads; ++i) late |= table[i] > mine[i];
    if (late) {
      for (int i = 0; i < state.threads; ++i) {
        if (table[i] > mine[i] && i != t) {
          report_shared("write-after-read race", at, i, cell.read_site, "read", t, site);
        }
      }
    }
    free_tables.push_back(cell.readers);
    cell.readers = -1;
  } else if (!ordered(cell.reader, cell.read_clock, t)) {
    report_shared("write-after-read race", at, cell.reader, cell.read_site, "read", t, site);
  }
  cell.reader = -1;
  cell.writer = static_cast<std::int16_t>(t);
  cell.write_clock = state.clocks[t].threads[t];
  cell.write_site = site;
  cell.async_write = async;
}

void detach(Cell& copy) {
  if (copy.readers < 0) return;
  const int table = new_table();
  tables[table] = tables[copy.readers];
  copy.readers = table;
}

}  // namespace

void reset_shared() {
  cells.resize((state.bytes + 1) / 2);
  std::fill_n(cells.begin(), touched, Cell());
  touched = 0;
  splits.clear();
  free_tables.resize(tables.size());
  for (std::size_t i = 0; i < tables.size(); ++i) free_tables[i] = static_cast<int>(i);
}

void access_shared(int t, std::size_t offset, std::size_t bytes, bool is_write, Site site,
                   bool async) {
  const std::size_t end = std::min(state.bytes, offset + bytes);
  touched = std::max(touched, (end + 1) / 2);
  splits.walk(
      offset, end, [](std::uintptr_t at) -> Cell& { return cells[at / 2]; }, detach,
      [&](Cell& cell, std::uintptr_t at) {
        if (is_write) {
          write(cell, at, t, site, async);
        } else {
          read(cell, at, t, site, async);
        }
      });
}

}  // namespace xpu::emu::race
