// Kernels that use one Hopper wrapper each; conformance.h says what they compute.
#include "kernels/xpu/conformance.h"

#include "kernels/xpu/xpu.h"

namespace lh::test {

namespace {

using xpu::bf16;
using xpu::Mbarrier;
using xpu::TensorMap;

__global__ void mbarrier_kernel(const float* in, float* out, int rounds) {
  constexpr int kSlots = 2, kConsumers = 3;
  XPU_SHARED(float, slots, [kSlots][32]);
  XPU_SHARED(Mbarrier, full, [kSlots]);
  XPU_SHARED(Mbarrier, empty, [kSlots]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kSlots; ++s) {
      xpu::mbarrier_init(&full[s], 32);
      xpu::mbarrier_init(&empty[s], kConsumers);
    }
    xpu::mbarrier_init_fence();
  }
  xpu::sync_block();
  for (int round = 0; round < rounds; ++round) {
    const int s = round % kSlots;
    if (warp == 0) {
      if (round >= kSlots) xpu::mbarrier_wait(&empty[s], (round / kSlots - 1) & 1);
      slots[s][lane] = in[round * 32 + lane];
      xpu::mbarrier_arrive(&full[s]);
    } else {
      xpu::mbarrier_wait(&full[s], round / kSlots & 1);
      out[((warp - 1) * rounds + round) * 32 + lane] = slots[s][31 - lane];
      xpu::sync_warp();
      if (lane == 0) xpu::mbarrier_arrive(&empty[s]);
    }
  }
}

__global__ void tma_load_kernel(const XPU_GRID_CONSTANT TensorMap map, int box_bytes, int box_rows,
                                int x, int y, bool twice, unsigned char* out) {
  XPU_DYN_SHARED(unsigned char, tile);
  XPU_SHARED(Mbarrier, full, [1]);
  const int boxes = twice ? 2 : 1;
  if (threadIdx.x == 0) {
    xpu::mbarrier_init(full, 1);
    xpu::mbarrier_init_fence();
    xpu::mbarrier_arrive_expect(full, boxes * box_bytes);
    for (int i = 0; i < boxes; ++i) {
      xpu::tma_load(tile + i * box_bytes, map, x, y + i * box_rows, full);
    }
  }
  xpu::sync_block();
  xpu::mbarrier_wait(full, 0);
  for (int i = threadIdx.x; i < boxes * box_bytes; i += blockDim.x) out[i] = tile[i];
}

__global__ void tma_store_kernel(const XPU_GRID_CONSTANT TensorMap map, int box_bytes, int x, int y,
                                 const unsigned char* box) {
  XPU_DYN_SHARED(unsigned char, tile);
  for (int i = threadIdx.x; i < box_bytes; i += blockDim.x) tile[i] = box[i];
  xpu::fence_proxy_async();
  xpu::sync_block();
  if (threadIdx.x == 0) {
    xpu::tma_store(map, x, y, tile);
    xpu::tma_store_commit();
    xpu::tma_store_wait<0>();
  }
}

constexpr int kK = 128, kSteps = kK / 16;

/// How a is given: rows along K, rows along M, in registers.
enum class Left { kInner, kOuter, kRegisters };

template <int kN, Left kLeft, bool kOuterB>
__global__ void __launch_bounds__(128)
    wgmma_kernel(const bf16* a, const bf16* b, float* d, int columns, bool accumulate,
                 bool pipelined) {
  XPU_DYN_SHARED(bf16, a_tile);
  bf16* const b_tile = a_tile + 64 * kK;
  if (kLeft != Left::kRegisters) {
    for (int i = threadIdx.x; i < 64 * kK; i += 128) a_tile[i] = a[i];
  }
  for (int i = threadIdx.x; i < kN * kK; i += 128) b_tile[i] = b[i];
  xpu::fence_proxy_async();
  xpu::sync_block();

  const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  float acc[kN / 2];
  for (int j = 0; j < kN / 8; ++j) {
    for (int e = 0; e < 4; ++e) acc[4 * j + e] = d[(row + e / 2 * 8) * kN + 8 * j + 2 * t + e % 2];
  }
  std::uint32_t fragments[kSteps][4];
  if constexpr (kLeft == Left::kRegisters) {
    for (int s = 0; s < kSteps; ++s) {
      for (int i = 0; i < 4; ++i) {
        const bf16* pair = a + (row + i % 2 * 8) * kK + 16 * s + 2 * t + i / 2 * 8;
        fragments[s][i] = xpu::pack(pair[0], pair[1]);
      }
    }
  }
  // kInner: blocks of `columns` along K; kOuter: blocks of `columns` along M or N, 128 rows of K each.
  const auto inner = [&](const bf16* tile, int rows, int s) {
    const bf16* start = tile + 16 * s / columns * rows * columns + 16 * s % columns;
    return columns == 64 ? xpu::wgmma_operand(start) : xpu::wgmma_operand<64>(start);
  };
  const auto outer = [&](const bf16* tile, int s) {
    const bf16* start = tile + s * 16 * columns;
    const int lead = kK * columns * 2;
    return columns == 64 ? xpu::wgmma_operand(start, 1024, lead)
                         : xpu::wgmma_operand<64>(start, 512, lead);
  };
  const auto operand_b = [&](int s) { return kOuterB ? outer(b_tile, s) : inner(b_tile, kN, s); };
  xpu::wgmma_fence();
#pragma unroll
  for (int s = 0; s < kSteps; ++s) {
    constexpr xpu::Major kMajorB = kOuterB ? xpu::kOuter : xpu::kInner;
    const bool add = accumulate || s > 0;
    if constexpr (kLeft == Left::kRegisters) {
      xpu::wgmma<kMajorB>(acc, fragments[s], operand_b(s), add);
    } else if constexpr (kLeft == Left::kOuter) {
      xpu::wgmma<xpu::kOuter, kMajorB>(acc, outer(a_tile, s), operand_b(s), add);
    } else {
      xpu::wgmma<xpu::kInner, kMajorB>(acc, inner(a_tile, 64, s), operand_b(s), add);
    }
    if (pipelined) {
      xpu::wgmma_commit();
      xpu::wgmma_wait<1>();
    }
  }
  xpu::wgmma_commit();
  xpu::wgmma_wait<0>();
  for (int j = 0; j < kN / 8; ++j) {
    for (int e = 0; e < 4; ++e) d[(row + e / 2 * 8) * kN + 8 * j + 2 * t + e % 2] = acc[4 * j + e];
  }
}

__global__ void __launch_bounds__(384, 1) registers_kernel(const float* in, float* out) {
  if (threadIdx.x < 128) {
    xpu::registers_shrink_to<40>();
  } else {
    xpu::registers_grow_to<224>();
  }
  out[threadIdx.x] = in[threadIdx.x];
}

template <int kN, Left kLeft>
void launch_wgmma(const WgmmaCase& c, const bf16* a, const bf16* b, float* d) {
  const xpu::LaunchConfig config{1, 128, (64 + kN) * kK * sizeof(bf16)};
  if (c.b_outer) {
    xpu::launch<wgmma_kernel<kN, kLeft, true>>(config, a, b, d, c.columns, c.accumulate,
                                               c.pipelined);
  } else {
    xpu::launch<wgmma_kernel<kN, kLeft, false>>(config, a, b, d, c.columns, c.accumulate,
                                                c.pipelined);
  }
}

template <int kN>
void launch_wgmma(const WgmmaCase& c, const bf16* a, const bf16* b, float* d) {
  if (c.in_registers) {
    launch_wgmma<kN, Left::kRegisters>(c, a, b, d);
  } else if (c.a_outer) {
    launch_wgmma<kN, Left::kOuter>(c, a, b, d);
  } else {
    launch_wgmma<kN, Left::kInner>(c, a, b, d);
  }
}

}  // namespace

void run_mbarriers(const float* in, float* out, int rounds) {
  xpu::launch<mbarrier_kernel>({1, 128}, in, out, rounds);
}

void run_tma_load(const void* matrix, int element_bytes, int rows, int columns, int row_elements,
                  int box_rows, int box_row_bytes, int x, int y, bool twice, unsigned char* out) {
  const TensorMap map = xpu::make_tensor_map(matrix, element_bytes, rows, columns,
                                             row_elements * element_bytes, box_rows,
                                             box_row_bytes / element_bytes);
  const int bytes = box_rows * box_row_bytes;
  xpu::launch<tma_load_kernel>({1, 64, static_cast<std::size_t>(bytes) * (twice ? 2 : 1)}, map,
                               bytes, box_rows, x, y, twice, out);
}

void run_tma_store(const unsigned char* box, int element_bytes, int rows, int columns,
                   int row_elements, int box_rows, int box_row_bytes, int x, int y, void* matrix) {
  const TensorMap map = xpu::make_tensor_map(matrix, element_bytes, rows, columns,
                                             row_elements * element_bytes, box_rows,
                                             box_row_bytes / element_bytes);
  const int bytes = box_rows * box_row_bytes;
  xpu::launch<tma_store_kernel>({1, 64, static_cast<std::size_t>(bytes)}, map, bytes, x, y, box);
}

void run_wgmma(const WgmmaCase& c, const bf16* a, const bf16* b, float* d) {
  if (c.n == 48) {
    launch_wgmma<48>(c, a, b, d);
  } else if (c.n == 64) {
    launch_wgmma<64>(c, a, b, d);
  } else if (c.n == 96) {
    launch_wgmma<96>(c, a, b, d);
  } else if (c.n == 128) {
    launch_wgmma<128>(c, a, b, d);
  } else {
    launch_wgmma<256>(c, a, b, d);
  }
}

void run_register_budgets(const float* in, float* out) {
  xpu::launch<registers_kernel>({1, 384}, in, out);
}

}  // namespace lh::test
