// Emulator: wgmma. Same calls as device/wgmma.cuh.
#pragma once
#include "kernels/xpu/emu/where.h"
#include "kernels/xpu/types.h"

namespace xpu {

enum Major { kInner = 0, kOuter = 1 };

void wgmma_fence(Where where = Where::here());
void wgmma_commit(Where where = Where::here());

namespace emu {
std::uint64_t wgmma_operand(const bf16* tile, int row_bytes, int stride, int lead, Where where);
void wgmma_wait(int pending, Where where);
struct Wgmma {  // one lane's call
  float* d;
  int n;
  bool accumulate, a_outer, b_outer;
  const std::uint32_t* a_registers;  // null: a is a descriptor
  std::uint64_t a, b;
};
void wgmma(Wgmma call, Where where);
}  // namespace emu

template <int kRowBytes = 128>
std::uint64_t wgmma_operand(const bf16* tile, int stride = 8 * kRowBytes, int lead = 16,
                            Where where = Where::here()) {
  static_assert(kRowBytes == 128 || kRowBytes == 64);
  return emu::wgmma_operand(tile, kRowBytes, stride, lead, where);
}

template <int kPending>
void wgmma_wait(Where where = Where::here()) {
  emu::wgmma_wait(kPending, where);
}

template <Major kMajorA = kInner, Major kMajorB = kInner, int kAccumulators>
void wgmma(float (&d)[kAccumulators], std::uint64_t a, std::uint64_t b, bool accumulate,
           Where where = Where::here()) {
  static_assert(kAccumulators == 24 || kAccumulators == 32 || kAccumulators == 48 ||
                kAccumulators == 64 || kAccumulators == 128);
  emu::wgmma({d, kAccumulators * 2, accumulate, kMajorA == kOuter, kMajorB == kOuter, nullptr, a, b},
             where);
}

template <Major kMajorB = kInner, int kAccumulators>
void wgmma(float (&d)[kAccumulators], const std::uint32_t (&a)[4], std::uint64_t b,
           bool accumulate, Where where = Where::here()) {
  static_assert(kAccumulators == 24 || kAccumulators == 32 || kAccumulators == 48 ||
                kAccumulators == 64 || kAccumulators == 128);
  emu::wgmma({d, kAccumulators * 2, accumulate, false, kMajorB == kOuter, a, 0, b}, where);
}

}  // namespace xpu
