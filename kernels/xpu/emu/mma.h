// Emulator: ldmatrix and mma.sync. Same calls as device/mma.cuh.
#pragma once
#include "kernels/xpu/emu/where.h"
#include "kernels/xpu/types.h"

namespace xpu {

namespace emu {
void load_matrix_x4(std::uint32_t* r, const void* row, bool transpose, Where where);
}

template <bool kTranspose = false>
void load_matrix_x4(std::uint32_t (&r)[4], const void* row, Where where = Where::here()) {
  emu::load_matrix_x4(r, row, kTranspose, where);
}
void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
              Where where = Where::here());
void mma_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
              Where where = Where::here());

inline std::uint32_t to_tf32(float x) {
  std::uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & ~0x1fffu;
}

}  // namespace xpu
