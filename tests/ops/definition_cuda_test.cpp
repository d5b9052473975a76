// Attention on a CUDA device, real or emulated, against its definitions.
#include "definition_cases.h"
#include "runtime/gpu.h"

namespace {

using namespace lh;
using namespace lh::test;

TEST_CASE("attention and parallax on the device equal their definitions") {
  if (gpu::device_count() == 0) {
    MESSAGE("SKIPPED: no CUDA device (" << gpu::unavailable_reason() << ")");
    return;
  }
  const Device device{DeviceKind::kCuda, 0};
  check_definitions(DType::kF32, device, 2e-5);
  check_definitions(DType::kBF16, device, 2e-2);
}

}  // namespace
