// Exact local linear attention on a device.
#include <doctest/doctest.h>

#include "backend/lla.h"
#include "runtime/gpu.h"
#include "support/compare.h"

using namespace lh;
using namespace lh::test;

TEST_CASE("cuda local linear attention is the CPU's, bit for bit, of strided rows too") {
  if (gpu::device_count() == 0) {
    MESSAGE("SKIPPED: no CUDA device (" << gpu::unavailable_reason() << ")");
    return;
  }
  constexpr Device kGpu{DeviceKind::kCuda, 0};
  AttentionPlan plan;
  plan.segments = {{0, 5, 0, 5, 0}, {5, 6, 5, 6, 0}};
  plan.scale = 0.5;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Tensor q = random_tensor({11, 2, 4}, dtype, 1), v = random_tensor({11, 1, 3}, dtype, 3),
                 wide = random_tensor({11, 1, 8}, dtype, 2), d_out = random_tensor({11, 2, 3}, dtype, 4);
    const auto run = [&](Device device, const auto& forward, const auto& backward) {
      const Tensor k = wide.to(device).slice(2, 0, 4);
      Tensor out = Tensor::empty({11, 2, 3}, dtype, device);
      LlaGradients d{Tensor::empty({11, 2, 4}, dtype, device),
                     Tensor::empty({11, 1, 4}, dtype, device),
                     Tensor::empty({11, 1, 3}, dtype, device)};
      forward(q.to(device), k, v.to(device), plan, LlaOptions{}, out);
      backward(q.to(device), k, v.to(device), d_out.to(device), plan, LlaOptions{}, d);
      return std::vector{out.to(kCpuDevice), d.dq.to(kCpuDevice), d.dk.to(kCpuDevice),
                         d.dv.to(kCpuDevice)};
    };
    const auto want = run(kCpuDevice, cpu::lla_forward, cpu::lla_backward);
    const auto got = run(kGpu, cuda::lla_forward, cuda::lla_backward);
    for (size_t i = 0; i < want.size(); ++i) CHECK(bitwise_equal(got[i], want[i]));
  }
}
