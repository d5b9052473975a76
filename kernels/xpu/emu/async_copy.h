// Emulator: cp.async. Same calls as device/async_copy.cuh.
#pragma once
#include "kernels/xpu/emu/where.h"
#include "kernels/xpu/types.h"

namespace xpu {

namespace emu {
void copy_async(void* shared, const void* global, int bytes, bool valid, Where where);
void copy_async_wait(int pending);
}  // namespace emu

template <int kBytes>
void copy_async(void* shared, const void* global, bool valid = true,
                Where where = Where::here()) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  emu::copy_async(shared, global, kBytes, valid, where);
}
void copy_async_commit();
template <int kPending>
void copy_async_wait() {
  emu::copy_async_wait(kPending);
}

}  // namespace xpu
