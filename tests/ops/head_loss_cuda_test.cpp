// Losses over a language-model head on the device, against the textbook formulas in double.
#include "head_loss_test.h"

#include "runtime/gpu.h"

using namespace lh;
using namespace lh::test;

TEST_CASE("head losses and both gradients on the device equal the formulas for any cut") {
  if (gpu::device_count() == 0) {
    MESSAGE("SKIPPED: no CUDA device (" << gpu::unavailable_reason() << ")");
    return;
  }
  constexpr Device kGpu{DeviceKind::kCuda, 0};
  check_head_losses({DType::kF32, 4e-6, 4e-6}, kGpu, {5, 40});
  check_head_losses({DType::kBF16, 1e-5, 8e-3}, kGpu, {5, 40});
}
