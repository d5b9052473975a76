// What this machine's matrix products reach, as the yardstick for a training step.
#pragma once

#include "runtime/device.h"
#include "tensor/dtype.h"

namespace lh {

/// Floating-point operations per second of a large product in `dtype`, the best of a few. Takes half
/// a second at most on devices that need more than that for large products.
double measure_matmul_peak(DType dtype, Device device);

}  // namespace lh
