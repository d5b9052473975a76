// Device side: mbarriers, the tensor copy engine (TMA), register budgets (sm_90, sm_90a).
#pragma once
#include <cuda.h>

#include "kernels/xpu/device/async_copy.cuh"
#include "kernels/xpu/device/launch.cuh"

namespace xpu {

using Mbarrier = std::uint64_t;  // in shared memory, 8-byte aligned
using TensorMap = CUtensorMap;   // passed to kernels as `const XPU_GRID_CONSTANT TensorMap`

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

/// One thread initialises; then mbarrier_init_fence and a block barrier make it known to all.
__device__ __forceinline__ void mbarrier_init(Mbarrier* b, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(arrivals)
               : "memory");
}
__device__ __forceinline__ void mbarrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void mbarrier_arrive(Mbarrier* b) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(b)) : "memory");
}
/// Arrives, and makes the phase also wait for `bytes` of tensor copies.
__device__ __forceinline__ void mbarrier_arrive_expect(Mbarrier* b, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)),
               "r"(bytes)
               : "memory");
}
/// Waits until the phase of this parity has completed; the first phase has parity 0.
__device__ __forceinline__ void mbarrier_wait(Mbarrier* b, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" ::"r"(shared_address(b)),
      "r"(parity)
      : "memory");
}

/// Makes this thread's stores to shared memory visible to TMA stores and wgmma that are ordered
/// after it by a barrier. Each writing thread calls it before that barrier.
__device__ __forceinline__ void fence_proxy_async() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// Starts copying the map's box at (column x, row y) to `shared`; elements outside the tensor
/// become zero. Completes on `b` with the size of the whole box. One thread calls it.
__device__ __forceinline__ void tma_load(void* shared, const TensorMap& map, int x, int y,
                                         Mbarrier* b) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4}], [%2];" ::"r"(shared_address(shared)),
      "l"(&map), "r"(shared_address(b)), "r"(x), "r"(y)
      : "memory");
}
/// The reverse; elements outside the tensor are dropped.
__device__ __forceinline__ void tma_store(const TensorMap& map, int x, int y, const void* shared) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];" ::
                   "l"(&map),
               "r"(shared_address(shared)), "r"(x), "r"(y)
               : "memory");
}
__device__ __forceinline__ void tma_store_commit() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
/// Until at most kPending groups still read shared memory, which may then be reused.
template <int kPending>
__device__ __forceinline__ void tma_store_wait() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}

#endif

/// Moves registers between warpgroups (sm_90a); all warps of a warpgroup call it. The kernel needs
/// __launch_bounds__(threads, 1).
template <int kRegisters>
__device__ __forceinline__ void registers_grow_to() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}
template <int kRegisters>
__device__ __forceinline__ void registers_shrink_to() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}

/// Map of a row-major matrix of 2- or 4-byte elements whose boxes lie swizzled in shared memory, as
/// wgmma reads them: with box rows of 128 bytes, 16-byte chunk c of row r lies at chunk
/// c ^ (r % 8); with 64 bytes, at c ^ (r / 2 % 4). `base` and row_bytes are multiples of 16; shared
/// tiles are aligned to 8 box rows.
inline TensorMap make_tensor_map(const void* base, int element_bytes, long rows, long columns,
                                 long row_bytes, int box_rows, int box_columns) {
  using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*,
                              const cuuint64_t*, const cuuint64_t*, const cuuint32_t*,
                              const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                              CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  // Through the runtime, so that nothing links libcuda, which exists only beside a driver.
  static const Encode encode = [] {
    void* symbol = nullptr;
    cudaDriverEntryPointQueryResult found;
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &symbol, 12000,
                                           cudaEnableDefault, &found),
          "cuTensorMapEncodeTiled");
    return reinterpret_cast<Encode>(symbol);
  }();
  if (!encode) throw Error("make_tensor_map: this driver has no tensor maps");
  TensorMap map;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(row_bytes)};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(box_columns),
                             static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  if (box_columns * element_bytes != 128 && box_columns * element_bytes != 64) {
    throw Error("make_tensor_map: box rows have 64 or 128 bytes, got " +
                std::to_string(box_columns * element_bytes));
  }
  const auto swizzle = box_columns * element_bytes == 128 ? CU_TENSOR_MAP_SWIZZLE_128B
                                                          : CU_TENSOR_MAP_SWIZZLE_64B;
  const auto type = element_bytes == 2 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                       : CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
  const CUresult result =
      encode(&map, type, 2, const_cast<void*>(base), sizes, strides, box, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw Error("make_tensor_map: refused with code " + std::to_string(result));
  }
  return map;
}

}  // namespace xpu
