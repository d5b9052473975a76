// Parts of an update of one parameter tensor (Muon), arithmetic in fp32. `scalars` are those of
// scalars.h in device memory; a gradient scale that is not finite leaves everything as it is.
#pragma once
#include "kernels/optim/scalars.h"

namespace lh::kernels {

/// m = mu m + (1 - mu) grad_scale g, and, when not null, direction = mu m + (1 - mu) grad_scale g
/// with the new m (Nesterov).
void momentum(float* m, const float* g, double mu, const double* scalars, float* direction,
              std::int64_t n, xpu::Stream stream);

/// With lr = learning_rate rate_factor lr_multiplier: p = (1 - lr weight_decay) p - lr update.
/// `compute` [n] receives p rounded; or null.
struct ApplyUpdate {
  float* p = nullptr;             // [n]
  const float* update = nullptr;  // [n]
  xpu::bf16* compute = nullptr;
  double learning_rate = 0, lr_multiplier = 1, weight_decay = 0;
  const double* scalars = nullptr;
};
void apply_update(const ApplyUpdate& params, std::int64_t n, xpu::Stream stream);

/// out[0] = what gradients are multiplied by so that their norm sqrt(sum_of_squares[0]) is at most
/// clip_norm (0: no clipping); NaN when the norm or one of losses[n] is not finite.
void clip_scale(const double* sum_of_squares, const double* losses, int n, double clip_norm,
                double* out, xpu::Stream stream);

}  // namespace lh::kernels
