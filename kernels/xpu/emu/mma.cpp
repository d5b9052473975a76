// Emulated ldmatrix and mma.sync: fragments are gathered from the 32 lanes, multiplied in fp32.
#include "kernels/xpu/emu/mma.h"

#include <algorithm>

#include "kernels/xpu/emu/collective.h"
#include "kernels/xpu/emu/core.h"
#include "kernels/xpu/emu/race.h"

namespace xpu {

namespace emu {

namespace {

float as_float(std::uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
float low(std::uint32_t r) { return as_float(r << 16); }
float high(std::uint32_t r) { return as_float(r & 0xffff0000u); }

struct LoadArgs {
  std::uint32_t* r;
  const void* row;
  bool transpose;
};

/// Eight 16-byte rows are read per cycle; rows in one group of four banks take a cycle each.
void count_conflicts(void** lanes) {
  Counters& c = mutable_counters();
  for (int matrix = 0; matrix < 4; ++matrix) {
    int used[8] = {};
    const void* rows[8];
    for (int i = 0; i < 8; ++i) {
      rows[i] = static_cast<LoadArgs*>(lanes[matrix * 8 + i])->row;
      const auto bank = reinterpret_cast<std::uintptr_t>(rows[i]) / 16 % 8;
      if (std::find(rows, rows + i, rows[i]) == rows + i) ++used[bank];
    }
    ++c.matrix_loads;
    c.bank_conflicts += *std::max_element(used, used + 8) - 1;
  }
}

struct MmaArgs {
  float* d;
  const std::uint32_t* a;
  const std::uint32_t* b;
};

/// d = a b. Not sanitized: nearly all of an emulated tensor core's time, on arrays of this file.
template <int kK>
__attribute__((no_sanitize("address", "undefined"))) void product(const float (&a)[16][kK],
                                                                  const float (&b)[kK][8],
                                                                  float (&d)[16][8]) {
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) d[i][j] = 0;
    for (int k = 0; k < kK; ++k) {
      for (int j = 0; j < 8; ++j) d[i][j] += a[i][k] * b[k][j];
    }
  }
}

template <int kK>
void multiply(const float (&a)[16][kK], const float (&b)[kK][8], void** lanes) {
  float d[16][8];
  product(a, b, d);
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    float* out = static_cast<MmaArgs*>(lanes[lane])->d;
    for (int i = 0; i < 4; ++i) out[i] += d[g + i / 2 * 8][2 * t + i % 2];
  }
}

void require_warp(unsigned arrived, const char* name, Where where) {
  if (arrived != ~0u) fail(where, std::string(name) + ": needs all 32 lanes of the warp");
}

}  // namespace

void load_matrix_x4(std::uint32_t* r, const void* row, bool transpose, Where where) {
  shared_address(row, 16, 16, "load_matrix_x4", where);
  race::access(self(), row, 16, false, where);
  LoadArgs args{r, row, transpose};
  collective(
      "load_matrix_x4", ~0u, &args,
      [](void** lanes, unsigned arrived, int, Where place) {
        require_warp(arrived, "load_matrix_x4", place);
        count_conflicts(lanes);
        for (int lane = 0; lane < 32; ++lane) {
          auto& mine = *static_cast<LoadArgs*>(lanes[lane]);
          const int g = lane / 4, t = lane % 4;
          for (int matrix = 0; matrix < 4; ++matrix) {
            const auto element = [&](int i, int j) {
              bf16 x;
              const void* base = static_cast<LoadArgs*>(lanes[matrix * 8 + i])->row;
              memcpy(&x, static_cast<const char*>(base) + j * 2, sizeof x);
              return x;
            };
            mine.r[matrix] = mine.transpose ? pack(element(2 * t, g), element(2 * t + 1, g))
                                            : pack(element(g, 2 * t), element(g, 2 * t + 1));
          }
        }
      },
      where, true);
}

}  // namespace emu

using namespace emu;

void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
              Where where) {
  MmaArgs args{d, a, b};
  collective(
      "mma_bf16", ~0u, &args,
      [](void** lanes, unsigned arrived, int, Where place) {
        require_warp(arrived, "mma_bf16", place);
        float ma[16][16], mb[16][8];
        for (int lane = 0; lane < 32; ++lane) {
          const auto& x = *static_cast<MmaArgs*>(lanes[lane]);
          const int g = lane / 4, t = lane % 4;
          for (int i = 0; i < 4; ++i) {
            ma[g + i % 2 * 8][2 * t + i / 2 * 8] = low(x.a[i]);
            ma[g + i % 2 * 8][2 * t + i / 2 * 8 + 1] = high(x.a[i]);
          }
          for (int i = 0; i < 2; ++i) {
            mb[2 * t + i * 8][g] = low(x.b[i]);
            mb[2 * t + i * 8 + 1][g] = high(x.b[i]);
          }
        }
        multiply<16>(ma, mb, lanes);
      },
      where, true);
}

void mma_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
              Where where) {
  MmaArgs args{d, a, b};
  collective(
      "mma_tf32", ~0u, &args,
      [](void** lanes, unsigned arrived, int, Where place) {
        require_warp(arrived, "mma_tf32", place);
        float ma[16][8], mb[8][8];
        for (int lane = 0; lane < 32; ++lane) {
          const auto& x = *static_cast<MmaArgs*>(lanes[lane]);
          const int g = lane / 4, t = lane % 4;
          // The hardware ignores the 13 low bits of a tf32 operand.
          for (int i = 0; i < 4; ++i) ma[g + i % 2 * 8][t + i / 2 * 4] = as_float(x.a[i] & ~0x1fffu);
          for (int i = 0; i < 2; ++i) mb[t + i * 4][g] = as_float(x.b[i] & ~0x1fffu);
        }
        multiply<8>(ma, mb, lanes);
      },
      where, true);
}

}  // namespace xpu
