// Optimizer updates.
#include "backend/optim.h"

#include <cmath>
#include <limits>

#include "backend/cpu/lanes.h"
#include "backend/elementwise.h"
#include "backend/operands.h"
#include "backend/cpu/parallel.h"
#include "backend/cpu/simd/optim.h"

namespace lh::cpu {
namespace {

/// Calls function<S, T>() with the parameter's type and that of the compute copy.
template <typename F>
void dispatch_copy(const Tensor& parameter, const Tensor* compute, std::string_view op,
                   F&& function) {
  check_contiguous(parameter, op, "parameter");
  if (compute != nullptr) {
    check_shape(*compute, parameter.shape(), op, "compute");
    check_contiguous(*compute, op, "compute");
  }
  const bool narrow = compute != nullptr && compute->dtype() == DType::kBF16;
  if (compute != nullptr && !narrow) check_dtype(*compute, parameter.dtype(), op, "compute");
  if (parameter.dtype() == DType::kF64 && !narrow) return function.template operator()<double, double>();
  check_dtype(parameter, DType::kF32, op, "parameter");
  if (narrow) return function.template operator()<float, bf16>();
  function.template operator()<float, float>();
}

template <typename T>
auto copy_at(const Tensor* compute, int64_t at) {
  return compute == nullptr ? nullptr : lanes<T>(*compute) + at;
}

/// The step's scalars; nothing is to be done when the gradient scale is not finite.
const double* scalars_of(const Tensor& scalars, std::string_view op) {
  check_shape(scalars, {kStepScalars}, op, "scalars");
  return scalars.data<double>();
}

void adamw_one(const AdamWOperand& operand, const AdamWSettings& settings, const double* scalars) {
  const Tensor& parameter = operand.parameter;
  const std::pair<const Tensor*, const char*> operands[] = {
      {&operand.gradient, "gradient"}, {&operand.m, "m"}, {&operand.v, "v"}};
  for (const auto& [tensor, name] : operands) {
    check_like(*tensor, parameter, "adamw", name);
    check_contiguous(*tensor, "adamw", name);
  }
  const Tensor* compute = operand.compute.defined() ? &operand.compute : nullptr;
  dispatch_copy(parameter, compute, "adamw", [&]<typename S, typename T>() {
    const double rate =
        settings.learning_rate * scalars[kRateFactor] * operand.lr_multiplier;
    AdamWCoefficients<S> c;
    c.grad_scale = static_cast<S>(scalars[kGradScale]);
    c.beta1 = static_cast<S>(settings.beta1);
    c.beta2 = static_cast<S>(settings.beta2);
    c.step_size = static_cast<S>(rate / scalars[kFirstCorrection]);
    c.root_v_scale = static_cast<S>(scalars[kRootVScale]);
    c.eps = static_cast<S>(settings.eps);
    c.keep = static_cast<S>(1 - rate * scalars[kDecayFactor] * operand.weight_decay);
    for_each_block(parameter.numel(), kFlatBlock, [&](int64_t, int64_t begin, int64_t end) {
      LH_SIMD_CALL(adamw_step(parameter.data<S>() + begin,
                              static_cast<const S*>(operand.gradient.data<S>() + begin),
                              operand.m.data<S>() + begin, operand.v.data<S>() + begin,
                              copy_at<T>(compute, begin), c, end - begin));
    });
  });
}

}  // namespace

void adamw_step(const AdamWList& list, const AdamWSettings& settings, const Tensor& scalars) {
  const double* values = scalars_of(scalars, "adamw");
  if (!std::isfinite(values[kGradScale])) return;
  for (const AdamWOperand& operand : list.operands) adamw_one(operand, settings, values);
}

void momentum_step(Tensor& momentum, const Tensor& gradient, double mu, const Tensor& scalars,
                   Tensor* direction) {
  const double scale = scalars_of(scalars, "momentum")[kGradScale];
  if (std::isfinite(scale)) add_scaled(momentum, mu, gradient, (1 - mu) * scale, momentum);
  if (direction == nullptr) return;
  if (std::isfinite(scale)) add_scaled(gradient, (1 - mu) * scale, momentum, mu, *direction);
  else copy(momentum, *direction);
}

void apply_update(Tensor& parameter, const Tensor& update, double learning_rate,
                  double lr_multiplier, double weight_decay, const Tensor& scalars,
                  Tensor* compute) {
  check_like(update, parameter, "apply_update", "update");
  check_contiguous(update, "apply_update", "update");
  const double* values = scalars_of(scalars, "apply_update");
  if (!std::isfinite(values[kGradScale])) return;
  const double rate = learning_rate * values[kRateFactor] * lr_multiplier;
  dispatch_copy(parameter, compute, "apply_update", [&]<typename S, typename T>() {
    const S keep = static_cast<S>(1 - rate * values[kDecayFactor] * weight_decay);
    for_each_block(parameter.numel(), kFlatBlock, [&](int64_t, int64_t begin, int64_t end) {
      LH_SIMD_CALL(apply_update(parameter.data<S>() + begin,
                                static_cast<const S*>(update.data<S>() + begin), keep,
                                static_cast<S>(rate), copy_at<T>(compute, begin), end - begin));
    });
  });
}

void clip_scale(const Tensor& sum_of_squares, const Tensor& losses, double clip_norm,
                Tensor& out) {
  check_shape(sum_of_squares, {1}, "clip_scale", "sum_of_squares");
  check_shape(out, {1}, "clip_scale", "out");
  const double norm = std::sqrt(*sum_of_squares.data<double>());
  bool finite = std::isfinite(norm);
  for (const double loss : losses.span<double>()) finite = finite && std::isfinite(loss);
  const double factor = clip_norm > 0 && norm > clip_norm ? clip_norm / norm : 1;
  *out.data<double>() = finite ? factor : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace lh::cpu
