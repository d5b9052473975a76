// What this machine's matrix products reach, as the yardstick for a training step.
#pragma once

#include "tensor/dtype.h"

namespace lh {

/// Floating-point operations per second of a large product in `dtype`, best of a few; about half a
/// second of measuring.
double measure_matmul_peak(DType dtype);

}  // namespace lh
