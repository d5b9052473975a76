// Optimizer updates.
#include "backend/optim.h"

#include <cmath>

#include "backend/cpu/lanes.h"
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

}  // namespace

void adamw_step(Tensor& parameter, const Tensor& gradient, Tensor& m, Tensor& v,
                const AdamWStep& step, Tensor* compute) {
  LH_CHECK(step.step >= 1, "[adamw] steps count from 1, got {}", step.step);
  const std::pair<const Tensor*, const char*> operands[] = {
      {&gradient, "gradient"}, {&m, "m"}, {&v, "v"}};
  for (const auto& [tensor, name] : operands) {
    check_like(*tensor, parameter, "adamw", name);
    check_contiguous(*tensor, "adamw", name);
  }
  dispatch_copy(parameter, compute, "adamw", [&]<typename S, typename T>() {
    const double steps = static_cast<double>(step.step);
    AdamWCoefficients<S> c;
    c.grad_scale = static_cast<S>(step.grad_scale);
    c.beta1 = static_cast<S>(step.beta1);
    c.beta2 = static_cast<S>(step.beta2);
    c.step_size = static_cast<S>(step.learning_rate / (1 - std::pow(step.beta1, steps)));
    c.root_v_scale = static_cast<S>(1 / std::sqrt(1 - std::pow(step.beta2, steps)));
    c.eps = static_cast<S>(step.eps);
    c.keep = static_cast<S>(1 - step.learning_rate * step.weight_decay);
    for_each_block(parameter.numel(), kFlatBlock, [&](int64_t, int64_t begin, int64_t end) {
      LH_SIMD_CALL(adamw_step(parameter.data<S>() + begin,
                              static_cast<const S*>(gradient.data<S>() + begin),
                              m.data<S>() + begin, v.data<S>() + begin, copy_at<T>(compute, begin),
                              c, end - begin));
    });
  });
}

void apply_update(Tensor& parameter, const Tensor& update, double learning_rate,
                  double weight_decay, Tensor* compute) {
  check_like(update, parameter, "apply_update", "update");
  check_contiguous(update, "apply_update", "update");
  dispatch_copy(parameter, compute, "apply_update", [&]<typename S, typename T>() {
    const S keep = static_cast<S>(1 - learning_rate * weight_decay);
    for_each_block(parameter.numel(), kFlatBlock, [&](int64_t, int64_t begin, int64_t end) {
      LH_SIMD_CALL(apply_update(parameter.data<S>() + begin,
                                static_cast<const S*>(update.data<S>() + begin), keep,
                                static_cast<S>(learning_rate), copy_at<T>(compute, begin),
                                end - begin));
    });
  });
}

}  // namespace lh::cpu
