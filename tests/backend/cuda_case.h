// One case of a CUDA operation against the CPU's: the same inputs on both, and on the CPU in fp64.
#pragma once

#include <doctest/doctest.h>

#include "backend/elementwise.h"
#include "runtime/gpu.h"
#include "support/compare.h"

namespace lh::test {

constexpr Device kGpu{DeviceKind::kCuda, 0};
constexpr DType kTypes[] = {DType::kF32, DType::kBF16};

inline bool no_device() {
  if (gpu::device_count() > 0) return false;
  MESSAGE("SKIPPED: no CUDA device (" << gpu::unavailable_reason() << ")");
  return true;
}

/// The values of a tensor in another dtype on the CPU.
inline Tensor as(const Tensor& t, DType dtype) {
  Tensor result = Tensor::empty(t.shape(), dtype);
  cpu::copy(t, result);
  return result;
}

/// Runs `op(inputs, outputs)` on the CPU in `dtype` and in f64 and on the device, starting from equal
/// inputs and outputs, and compares every output. Integer inputs keep their type; outputs flagged
/// `sum` are f32 (f64 in f64).
struct Case {
  std::vector<Tensor> inputs;   // floating ones in f64
  std::vector<Tensor> outputs;  // in f64, with what they hold before
  std::vector<bool> sums;

  template <typename Cpu, typename Gpu>
  void check(DType dtype, double slack, Cpu&& on_cpu, Gpu&& on_gpu) const {
    const auto made = [&](DType type, Device device, std::vector<Tensor>& in,
                          std::vector<Tensor>& out) {
      for (const Tensor& t : inputs)
        in.push_back((is_floating(t.dtype()) ? as(as(t, dtype), type) : t).to(device));
      for (size_t i = 0; i < outputs.size(); ++i) {
        const DType kept = sums[i] ? DType::kF32 : dtype;
        const DType target = type == DType::kF64 ? DType::kF64 : kept;
        out.push_back(as(as(outputs[i], kept), target).to(device));
      }
    };
    std::vector<Tensor> in64, out64, in, out, in_gpu, out_gpu;
    made(DType::kF64, kCpuDevice, in64, out64);
    made(dtype, kCpuDevice, in, out);
    made(dtype, kGpu, in_gpu, out_gpu);
    on_cpu(in64, out64);
    on_cpu(in, out);
    on_gpu(in_gpu, out_gpu);
    for (size_t i = 0; i < outputs.size(); ++i) {
      CAPTURE(i);
      CAPTURE(std::string(dtype_name(dtype)));
      LH_CHECK_TWICE(out_gpu[i].to(kCpuDevice), out[i], to_doubles(out64[i]), slack);
    }
  }
};

inline Tensor normal(const Shape& shape, uint64_t seed, double scale = 1) {
  return random_tensor(shape, DType::kF64, seed, scale);
}

}  // namespace lh::test

// The same code for both backends; the namespaces differ.
#define LH_BOTH(dtype, slack, call)                                               \
  check(                                                                          \
      dtype, slack,                                                               \
      [&](std::vector<Tensor>& in, std::vector<Tensor>& out) {                    \
        using namespace lh::cpu;                                                  \
        (void)in, (void)out, call;                                                \
      },                                                                          \
      [&](std::vector<Tensor>& in, std::vector<Tensor>& out) {                    \
        using namespace lh::cuda;                                                 \
        (void)in, (void)out, call;                                                \
      })
