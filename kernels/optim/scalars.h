// The numbers of an update that change from step to step, fp64 in device memory: a launch that is
// replayed reads those of its own step.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

/// Positions in the array, as lh::StepScalar in backend/optim.h.
enum StepScalar {
  kGradScale,        // gradients are multiplied by this; NaN or infinite: nothing is updated
  kRateFactor,       // learning rates are multiplied by this
  kDecayFactor,      // weight decays are multiplied by this
  kFirstCorrection,  // 1 - beta1^t
  kRootVScale,       // 1 / sqrt(1 - beta2^t)
  kStepScalars
};

XPU_HD bool is_finite(double x) { return x - x == 0.0; }

}  // namespace lh::kernels
