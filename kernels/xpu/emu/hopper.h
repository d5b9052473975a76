// Emulator: mbarriers, TMA, register budgets. Same calls as device/hopper.cuh.
#pragma once
#include "kernels/xpu/emu/where.h"
#include "kernels/xpu/types.h"

namespace xpu {

using Mbarrier = std::uint64_t;

struct alignas(64) TensorMap {
  char* base;
  long rows, columns, row_bytes;
  int element_bytes, box_rows, box_columns;
};
TensorMap make_tensor_map(const void* base, int element_bytes, long rows, long columns,
                          long row_bytes, int box_rows, int box_columns);

void mbarrier_init(Mbarrier* b, int arrivals, Where where = Where::here());
inline void mbarrier_init_fence() {}
void mbarrier_arrive(Mbarrier* b, Where where = Where::here());
void mbarrier_arrive_expect(Mbarrier* b, int bytes, Where where = Where::here());
void mbarrier_wait(Mbarrier* b, int parity, Where where = Where::here());
void fence_proxy_async();

void tma_load(void* shared, const TensorMap& map, int x, int y, Mbarrier* b,
              Where where = Where::here());
void tma_store(const TensorMap& map, int x, int y, const void* shared,
               Where where = Where::here());
void tma_store_commit();
namespace emu {
void tma_store_wait(int pending);
void set_registers(Where where);
}  // namespace emu
template <int kPending>
void tma_store_wait() {
  emu::tma_store_wait(kPending);
}

template <int kRegisters>
void registers_grow_to(Where where = Where::here()) {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
  emu::set_registers(where);
}
template <int kRegisters>
void registers_shrink_to(Where where = Where::here()) {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
  emu::set_registers(where);
}

}  // namespace xpu
