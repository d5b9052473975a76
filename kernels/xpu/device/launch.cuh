// Device side: launching, shared memory, device buffers.
#pragma once
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>
#include <string_view>

#include "kernels/xpu/limits.h"
#include "kernels/xpu/types.h"

#define XPU_GRID_CONSTANT __grid_constant__
/// Static shared array: XPU_SHARED(float, partial, [32]);
#define XPU_SHARED(T, name, dims) __shared__ __align__(16) T name dims
/// Dynamic shared memory of the launch, 1024-byte aligned: XPU_DYN_SHARED(xpu::bf16, tiles);
#define XPU_DYN_SHARED(T, name)                                       \
  extern __shared__ __align__(1024) unsigned char xpu_dyn_shared_[]; \
  T* name = reinterpret_cast<T*>(xpu_dyn_shared_)

namespace xpu {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct LaunchConfig {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;  // dynamic
  Stream stream = nullptr;
};

inline void check(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return;
  cudaGetLastError();  // clears it, so that the next call does not report this one again
  throw Error(std::string(what) + ": " + cudaGetErrorString(code));
}

template <class... Params, class... Args>
void launch_converted(void (*kernel)(Params...), std::string_view name, const LaunchConfig& config,
                      Args&&... args) {
  const std::string problem = launch_problem(config.grid, config.block, config.shared_bytes);
  if (!problem.empty()) throw Error(std::string(name) + ": " + problem);
  // Above 48 KiB a kernel must ask for its dynamic shared memory.
  if (config.shared_bytes > 48 * 1024) {
    const cudaError_t code = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(config.shared_bytes));
    if (code != cudaSuccess) {
      check(code, (std::string(name) + ": " + std::to_string(config.shared_bytes) +
                   " bytes of dynamic shared memory are refused by this device")
                      .c_str());
    }
  }
  kernel<<<config.grid, config.block, config.shared_bytes, config.stream>>>(
      static_cast<Params>(args)...);
  const cudaError_t code = cudaGetLastError();
  if (code != cudaSuccess) check(code, std::string(name).c_str());
}

/// xpu::launch<my_kernel<float>>({.grid = 8, .block = 256, .stream = s}, args...);
template <auto kKernel, class... Args>
void launch(const LaunchConfig& config, Args&&... args) {
  launch_converted(kKernel, kernel_name(__PRETTY_FUNCTION__), config, static_cast<Args&&>(args)...);
}

inline void* device_alloc(std::size_t bytes) {
  void* p = nullptr;
  check(cudaMalloc(&p, bytes), "cudaMalloc");
  return p;
}
inline void device_free(void* p) { cudaFree(p); }
inline void copy_in(void* device, const void* host, std::size_t bytes) {
  check(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice), "copy to device");
}
inline void copy_out(void* host, const void* device, std::size_t bytes) {
  check(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), "copy from device");
}

}  // namespace xpu
