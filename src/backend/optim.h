// Optimizer updates. Masters and moments are f32 (or f64 in tests). The numbers of an update that
// change from step to step lie on the device, so that nothing waits for them and a captured step can
// be launched again with new ones.
#pragma once

#include <memory>
#include <vector>

#include "backend/backend_state.h"
#include "tensor/dispatch.h"
#include "tensor/tensor.h"

namespace lh {

/// Positions in the step's scalars, f64 [kStepScalars] on the device of the parameters.
enum StepScalar : int64_t {
  kGradScale,        // gradients are multiplied by this (clipping); not finite: nothing is updated
  kRateFactor,       // learning rates are multiplied by this (schedule)
  kDecayFactor,      // weight decays are multiplied by this (schedule)
  kFirstCorrection,  // AdamW's bias corrections of step t: 1 - beta1^t
  kRootVScale,       // 1 / sqrt(1 - beta2^t)
  kStepScalars
};

struct AdamWSettings {
  double learning_rate, beta1, beta2, eps;
};

/// One parameter of an update; all tensors of one shape, contiguous.
struct AdamWOperand {
  Tensor parameter, gradient, m, v;
  Tensor compute;  // receives the parameter rounded to its dtype (bf16 copy of the model), or undefined
  double lr_multiplier = 1, weight_decay = 0;
};

struct AdamWList {
  std::vector<AdamWOperand> operands;
  mutable std::shared_ptr<BackendState> backend_state = nullptr;
};

}  // namespace lh

LH_BACKENDS(
    /// Decoupled weight decay (Loshchilov & Hutter 2019) for every operand: m, v moments of
    /// grad_scale * gradient, then p -= lr (m_hat / (sqrt(v_hat) + eps) + weight_decay p) with
    /// lr = learning_rate * rate factor * lr_multiplier. One pass over all of them.
    void adamw_step(const AdamWList& list, const AdamWSettings& settings, const Tensor& scalars);
    /// momentum = mu momentum + (1 - mu) grad_scale gradient; `direction`, when not null, receives
    /// mu momentum + (1 - mu) grad_scale gradient with the new momentum (Nesterov), or the momentum
    /// when the step is not finite.
    void momentum_step(Tensor& momentum, const Tensor& gradient, double mu, const Tensor& scalars,
                       Tensor* direction);
    /// p = p (1 - lr weight_decay) - lr update, and the compute copy (Muon, SGD);
    /// lr = learning_rate * rate factor * lr_multiplier.
    void apply_update(Tensor& parameter, const Tensor& update, double learning_rate,
                      double lr_multiplier, double weight_decay, const Tensor& scalars,
                      Tensor* compute);
    /// out [1] f64 = what gradients are multiplied by so that their norm, sqrt(sum_of_squares [1]
    /// f64), is at most clip_norm (0: no clipping); NaN when the norm or one of `losses` [n] f64 is
    /// not finite.
    void clip_scale(const Tensor& sum_of_squares, const Tensor& losses, double clip_norm,
                    Tensor& out);)
