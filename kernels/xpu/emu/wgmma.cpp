// Emulated wgmma. An operation exists once all four warps of the warpgroup have issued it; its
// effect happens then, or at the first wait that covers it. Waiting also waits for the other warps,
// because one thread of the warpgroup may hand the tiles back for all of them.
#include "kernels/xpu/emu/wgmma.h"

#include <algorithm>
#include <array>
#include <deque>
#include <vector>

#include "kernels/xpu/emu/collective.h"
#include "kernels/xpu/emu/core.h"
#include "kernels/xpu/emu/race.h"

namespace xpu {

namespace emu {

namespace {

struct Operation {
  std::array<Wgmma, 128> calls;
  std::array<std::array<std::uint32_t, 4>, 128> a;  // register operands
  Where where{};
  int issued = 0;  // warps
  bool done = false;
  race::Clock clock;
};

struct WarpState {
  long issued = 0, waited = 0;  // operations
  std::deque<long> group_ends;  // operations issued before each commit that is not waited for
  bool fenced = false;
};

struct Warpgroup {
  std::deque<Operation> operations;
  long first = 0;  // index of operations.front()
  WarpState warps[4];
  std::vector<int> waiting;
};

std::vector<Warpgroup> groups;

WarpState& warp_state(int warp) { return groups[warp / 4].warps[warp % 4]; }

float value_of(bf16 x) { return to_float(x); }

/// Reads 16 k of `count` rows (m or n) through a descriptor, as the tensor core would.
void read_operand(std::uint64_t descriptor, bool outer, int count, float (*out)[16], Where where,
                  bool for_race) {
  const int layout = static_cast<int>(descriptor >> 62);
  if (layout != 1 && layout != 2) {
    fail(where, "wgmma: operands have swizzled rows of 64 or 128 bytes");
  }
  const int row_bytes = layout == 1 ? 128 : 64, row_chunks = row_bytes / 16;
  const auto start = static_cast<std::uint32_t>(descriptor & 0x3fff) << 4;
  const auto lead = static_cast<std::uint32_t>(descriptor >> 16 & 0x3fff) << 4;
  const auto stride = static_cast<std::uint32_t>(descriptor >> 32 & 0x3fff) << 4;
  const int rows = outer ? 16 : count, chunks = outer ? count / 8 : 2;
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < chunks; ++c) {
      std::uint32_t address = start + r / 8 * stride + r % 8 * row_bytes;
      address += outer ? c / row_chunks * lead + c % row_chunks * 16 : c * 16;
      address ^= (address >> 7 & (row_chunks - 1)) << 4;
      const char* p = shared_pointer(address, 16, "wgmma", where);
      if (for_race) race::access(self(), p, 16, false, where, true);
      bf16 x[8];
      memcpy(x, p, sizeof x);
      for (int i = 0; i < 8; ++i) {
        if (outer) {
          out[c * 8 + i][r] = value_of(x[i]);
        } else {
          out[r][c * 8 + i] = value_of(x[i]);
        }
      }
    }
  }
}

void note_reads(const Operation& op) {
  static float scratch[256][16];
  const Wgmma& call = op.calls[0];
  if (!call.a_registers) read_operand(call.a, call.a_outer, 64, scratch, op.where, true);
  read_operand(call.b, call.b_outer, call.n, scratch, op.where, true);
}

/// out = a b. Not sanitized: nearly all of an emulated tensor core's time, on arrays of this file.
__attribute__((no_sanitize("address", "undefined"))) void multiply(const float (&a)[64][16],
                                                                    const float (&b)[16][256],
                                                                    int n, float (&out)[64][256]) {
  for (int m = 0; m < 64; ++m) {
    for (int j = 0; j < n; ++j) out[m][j] = 0;
    for (int k = 0; k < 16; ++k) {
      for (int j = 0; j < n; ++j) out[m][j] += a[m][k] * b[k][j];
    }
  }
}

void perform(Operation& op) {
  static float a[64][16], b[256][16], b_by_k[16][256], product[64][256];
  const Wgmma& call = op.calls[0];
  if (call.a_registers) {
    for (int t = 0; t < 128; ++t) {
      const int row = t / 32 * 16 + t % 32 / 4, k = 2 * (t % 4);
      for (int i = 0; i < 4; ++i) {
        const std::uint32_t r = op.a[t][i];
        a[row + i % 2 * 8][k + i / 2 * 8] = to_float(bf16{static_cast<std::uint16_t>(r)});
        a[row + i % 2 * 8][k + i / 2 * 8 + 1] = to_float(bf16{static_cast<std::uint16_t>(r >> 16)});
      }
    }
  } else {
    read_operand(call.a, call.a_outer, 64, a, op.where, false);
  }
  read_operand(call.b, call.b_outer, call.n, b, op.where, false);
  for (int j = 0; j < call.n; ++j) {
    for (int k = 0; k < 16; ++k) b_by_k[k][j] = b[j][k];
  }
  multiply(a, b_by_k, call.n, product);
  for (int m = 0; m < 64; ++m) {
    for (int t = 0; t < 4; ++t) {
      float* d = op.calls[m / 16 * 32 + m % 8 * 4 + t].d + m % 16 / 8 * 2;
      for (int j = 0; j < call.n / 8; ++j) {
        for (int c = 0; c < 2; ++c) {
          float& out = d[4 * j + c];
          out = (call.accumulate ? out : 0.0f) + product[m][8 * j + 2 * t + c];
        }
      }
    }
  }
  op.done = true;
}

void perform_through(Warpgroup& g, long last) {
  for (long i = g.first; i <= last; ++i) {
    Operation& op = g.operations[i - g.first];
    if (!op.done) perform(op);
  }
}

void require_warpgroup(unsigned arrived, const char* name, Where where) {
  if (arrived != ~0u || block_threads() % 128) {
    fail(where, std::string(name) + ": needs whole warpgroups of 128 threads");
  }
}

struct WaitArgs {
  int pending;
};

void wait_for_groups(void** lanes, unsigned arrived, int warp, Where where) {
  require_warpgroup(arrived, "wgmma_wait", where);
  Warpgroup& g = groups[warp / 4];
  WarpState& state = warp_state(warp);
  long end = 0;
  while (static_cast<int>(state.group_ends.size()) >
         static_cast<WaitArgs*>(lanes[0])->pending) {
    end = state.group_ends.front();
    state.group_ends.pop_front();
  }
  while (g.first < end && g.operations[end - 1 - g.first].issued < 4) {
    g.waiting.push_back(self());
    sleep("wgmma_wait, for the other warps of the warpgroup", where);
  }
  if (end > g.first) perform_through(g, end - 1);
  for (long i = std::max(g.first, state.waited); i < end; ++i) {
    for (int lane = 0; lane < 32; ++lane) {
      race::acquire(warp * 32 + lane, g.operations[i - g.first].clock);
    }
  }
  // What all four warps have waited for is forgotten.
  state.waited = std::max(state.waited, end);
  long oldest = state.waited;
  for (const WarpState& w : g.warps) oldest = std::min(oldest, w.waited);
  for (; g.first < oldest; ++g.first) g.operations.pop_front();
}

}  // namespace

void reset_wgmma() { groups.assign((block_threads() + 127) / 128, {}); }

void wgmma(Wgmma call, Where where) {
  collective(
      "wgmma", ~0u, &call,
      [](void** lanes, unsigned arrived, int warp, Where place) {
        require_warpgroup(arrived, "wgmma", place);
        Warpgroup& g = groups[warp / 4];
        WarpState& state = warp_state(warp);
        if (!state.fenced) fail(place, "wgmma: no wgmma_fence before the first one");
        const long index = state.issued++;
        while (g.first + static_cast<long>(g.operations.size()) <= index) {
          g.operations.emplace_back();
        }
        Operation& op = g.operations[index - g.first];
        if (op.issued > 0 && op.where != place) {
          fail(place, "wgmma: another warp of the warpgroup issued the one at " +
                          describe(op.where) + " in its place");
        }
        op.where = place;
        for (int lane = 0; lane < 32; ++lane) {
          const auto& mine = *static_cast<Wgmma*>(lanes[lane]);
          const auto& first = *static_cast<Wgmma*>(lanes[0]);
          if (mine.b != first.b || mine.a != first.a || mine.accumulate != first.accumulate) {
            fail(place, "wgmma: lanes disagree on a descriptor or on accumulate");
          }
          const int t = warp % 4 * 32 + lane;
          op.calls[t] = mine;
          if (mine.a_registers) std::copy_n(mine.a_registers, 4, op.a[t].begin());
        }
        if (++op.issued < 4) return;
        if (race::enabled()) {
          note_reads(op);
          op.clock = race::snapshot(self());
        }
        if (perform_now()) perform_through(g, index);
        for (int t : g.waiting) wake(t);
        g.waiting.clear();
      },
      where, true);
}

void wgmma_wait(int pending, Where where) {
  WaitArgs args{pending};
  collective("wgmma_wait", ~0u, &args, wait_for_groups, where, true);
}

std::uint64_t wgmma_operand(const bf16* tile, int row_bytes, int stride, int lead, Where where) {
  const std::uint32_t address = shared_address(tile, 16, 16, "wgmma_operand", where);
  return static_cast<std::uint64_t>((address & 0x3ffff) >> 4) |
         static_cast<std::uint64_t>(lead >> 4) << 16 |
         static_cast<std::uint64_t>(stride >> 4) << 32 |
         std::uint64_t{row_bytes == 128 ? 1u : 2u} << 62;
}

}  // namespace emu

using namespace emu;

void wgmma_fence(Where where) {
  collective(
      "wgmma_fence", ~0u, nullptr,
      [](void**, unsigned arrived, int warp, Where place) {
        require_warpgroup(arrived, "wgmma_fence", place);
        warp_state(warp).fenced = true;
      },
      where, true);
}

void wgmma_commit(Where where) {
  collective(
      "wgmma_commit", ~0u, nullptr,
      [](void**, unsigned arrived, int warp, Where place) {
        require_warpgroup(arrived, "wgmma_commit", place);
        WarpState& state = warp_state(warp);
        state.group_ends.push_back(state.issued);
      },
      where, true);
}

}  // namespace xpu
