// Kernels that break a rule of launches or of the machine; emulator.h says which.
#include "kernels/xpu/emulator.h"

#include "kernels/xpu/xpu.h"

namespace lh::test {

namespace {

int overflow(volatile int* p, int depth) {
  volatile int room[256];
  room[depth % 256] = p[0];
  return depth < 1 << 20 ? overflow(room, depth + 1) + room[depth % 256] : p[0];
}

__global__ void fault_kernel(Fault fault, int* out, int zero) {
  const int block = static_cast<int>(blockIdx.y * gridDim.x + blockIdx.x);
  if (blockIdx.x == 1 && blockIdx.y == 2 && threadIdx.x == 37) {
    if (fault == Fault::kNullPointer) *static_cast<volatile int*>(nullptr) = 1;
    if (fault == Fault::kWildPointer) *reinterpret_cast<volatile int*>(0x10f000) = 1;
    if (fault == Fault::kDivision) out[0] = out[1] / zero;
    if (fault == Fault::kOverflow) out[0] = overflow(&zero, 0);
  }
  out[block * 64 + static_cast<int>(threadIdx.x)] = block;
}

__global__ void nothing_kernel() {}

__global__ void static_and_dynamic_kernel() {
  XPU_SHARED(char, block, [40 * 1024]);
  XPU_DYN_SHARED(char, rest);
  block[threadIdx.x] = 0;
  rest[threadIdx.x] = block[threadIdx.x];
}

__global__ void partial_arrival_kernel(bool partial) {
  if (threadIdx.x < 32) {
    xpu::named_sync(1, 64);
  } else if (!partial || threadIdx.x == 32) {
    xpu::named_arrive(1, 64);
  }
}

__global__ void conflict_kernel(float* x, int reach) {
  float* const own = x + 64 * blockIdx.y;
  const int t = static_cast<int>(threadIdx.x);
  if (t < 16) xpu::store_vec(own + 4 * t, xpu::Vec<float, 4>{});
  xpu::sync_block();
  if (t == 63 && blockIdx.y == 1) xpu::atomic_add(own + t + reach, 1.0f);
}

}  // namespace

void run_fault(Fault fault, int* out, int zero) {
  xpu::launch<fault_kernel>({dim3(2, 3), 64}, fault, out, zero);
}

void run_limits(unsigned grid_y, unsigned threads, std::size_t dynamic_bytes) {
  xpu::launch<nothing_kernel>({dim3(1, grid_y), threads, dynamic_bytes});
}

void run_static_and_dynamic(std::size_t dynamic_bytes) {
  xpu::launch<static_and_dynamic_kernel>({1, 32, dynamic_bytes});
}

void run_conflict(float* x, int reach) {
  xpu::launch<conflict_kernel>({dim3(1, 3), 64}, x, reach);
}

void run_partial_arrival(bool partial) {
  xpu::launch<partial_arrival_kernel>({1, 64}, partial);
}

}  // namespace lh::test
