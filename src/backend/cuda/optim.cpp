// Optimizer updates on the device; masters and moments are f32.
#include "backend/optim.h"

#include <cmath>

#include "backend/cuda/kernel_call.h"
#include "kernels/optim/updates.h"

namespace lh::cuda {
namespace {

/// The bf16 copy, or nullptr; throws when the operands are not those of an update.
xpu::bf16* check_update(const Tensor& parameter,
                        std::initializer_list<std::pair<const Tensor*, const char*>> operands,
                        const Tensor* compute, std::string_view op) {
  check_dtype(parameter, DType::kF32, op, "parameter");
  check_contiguous(parameter, op, "parameter");
  for (const auto& [tensor, name] : operands) {
    check_like(*tensor, parameter, op, name);
    check_contiguous(*tensor, op, name);
  }
  if (compute == nullptr) return nullptr;
  check_shape(*compute, parameter.shape(), op, "compute");
  check_dtype(*compute, DType::kBF16, op, "compute");
  check_contiguous(*compute, op, "compute");
  return pointer<bf16>(*compute);
}

}  // namespace

void adamw_step(Tensor& parameter, const Tensor& gradient, Tensor& m, Tensor& v,
                const AdamWStep& step, Tensor* compute) {
  LH_CHECK(step.step >= 1, "[adamw] steps count from 1, got {}", step.step);
  xpu::bf16* copy =
      check_update(parameter, {{&gradient, "gradient"}, {&m, "m"}, {&v, "v"}}, compute, "adamw");
  const auto steps = static_cast<double>(step.step);
  kernels::AdamWCoefficients c;
  c.grad_scale = static_cast<float>(step.grad_scale);
  c.beta1 = static_cast<float>(step.beta1);
  c.beta2 = static_cast<float>(step.beta2);
  c.step_size = static_cast<float>(step.learning_rate / (1 - std::pow(step.beta1, steps)));
  c.root_v_scale = static_cast<float>(1 / std::sqrt(1 - std::pow(step.beta2, steps)));
  c.eps = static_cast<float>(step.eps);
  c.keep = static_cast<float>(1 - step.learning_rate * step.weight_decay);
  call("adamw", {&parameter, &gradient, &m, &v}, [&](gpu::Stream stream) {
    kernels::adamw_step(parameter.data<float>(), gradient.data<float>(), m.data<float>(),
                        v.data<float>(), copy, c, parameter.numel(), stream);
  });
}

void apply_update(Tensor& parameter, const Tensor& update, double learning_rate,
                  double weight_decay, Tensor* compute) {
  xpu::bf16* copy = check_update(parameter, {{&update, "update"}}, compute, "apply_update");
  call("apply_update", {&parameter, &update}, [&](gpu::Stream stream) {
    kernels::apply_update(parameter.data<float>(), update.data<float>(),
                          static_cast<float>(1 - learning_rate * weight_decay),
                          static_cast<float>(learning_rate), copy, parameter.numel(), stream);
  });
}

}  // namespace lh::cuda
