// Optimizer updates on the device; masters and moments are f32.
#include "backend/optim.h"

#include "backend/cuda/device_table.h"
#include "backend/cuda/kernel_call.h"
#include "kernels/optim/adamw.h"
#include "kernels/optim/updates.h"

namespace lh::cuda {
namespace {

static_assert(static_cast<int>(kernels::kGradScale) == static_cast<int>(kGradScale) &&
              static_cast<int>(kernels::kRateFactor) == static_cast<int>(kRateFactor) &&
              static_cast<int>(kernels::kFirstCorrection) == static_cast<int>(kFirstCorrection) &&
              static_cast<int>(kernels::kRootVScale) == static_cast<int>(kRootVScale));

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

const double* scalars_of(const Tensor& scalars, std::string_view op) {
  check_shape(scalars, {kStepScalars}, op, "scalars");
  return scalars.data<double>();
}

}  // namespace

void adamw_step(const AdamWList& list, const AdamWSettings& settings, const Tensor& scalars) {
  kernels::AdamWParams p;
  std::vector<kernels::AdamWTensor> entries;
  for (const AdamWOperand& operand : list.operands) {
    xpu::bf16* copy = check_update(
        operand.parameter,
        {{&operand.gradient, "gradient"}, {&operand.m, "m"}, {&operand.v, "v"}},
        operand.compute.defined() ? &operand.compute : nullptr, "adamw");
    const int64_t n = operand.parameter.numel();
    if (n == 0) continue;
    entries.push_back({.p = operand.parameter.data<float>(),
                       .g = operand.gradient.data<float>(),
                       .m = operand.m.data<float>(),
                       .v = operand.v.data<float>(),
                       .compute = copy,
                       .n = n,
                       .first_chunk = p.chunks,
                       .lr_multiplier = operand.lr_multiplier,
                       .weight_decay = operand.weight_decay});
    p.chunks += kernels::chunks_of(n);
  }
  if (entries.empty()) return;
  narrow(p.chunks, "adamw", "chunks");
  p.count = narrow(static_cast<int64_t>(entries.size()), "adamw", "parameters");
  p.learning_rate = settings.learning_rate;
  p.beta1 = settings.beta1;
  p.beta2 = settings.beta2;
  p.eps = settings.eps;
  p.scalars = scalars_of(scalars, "adamw");
  const AdamWOperand& first = list.operands.front();
  call("adamw", {&scalars, &first.parameter, &first.gradient}, [&](gpu::Stream stream) {
    p.tensors = device_table(list.backend_state, entries, scalars.device());
    kernels::adamw(p, stream);
  });
}

void momentum_step(Tensor& momentum, const Tensor& gradient, double mu, const Tensor& scalars,
                   Tensor* direction) {
  check_update(momentum, {{&gradient, "gradient"}}, nullptr, "momentum");
  if (direction != nullptr) check_update(momentum, {{direction, "direction"}}, nullptr, "momentum");
  call("momentum", {&momentum, &gradient, &scalars}, [&](gpu::Stream stream) {
    kernels::momentum(momentum.data<float>(), gradient.data<float>(), mu,
                      scalars_of(scalars, "momentum"),
                      direction == nullptr ? nullptr : direction->data<float>(), momentum.numel(),
                      stream);
  });
}

void apply_update(Tensor& parameter, const Tensor& update, double learning_rate,
                  double lr_multiplier, double weight_decay, const Tensor& scalars,
                  Tensor* compute) {
  kernels::ApplyUpdate p;
  p.compute = check_update(parameter, {{&update, "update"}}, compute, "apply_update");
  p.p = parameter.data<float>();
  p.update = update.data<float>();
  p.learning_rate = learning_rate;
  p.lr_multiplier = lr_multiplier;
  p.weight_decay = weight_decay;
  p.scalars = scalars_of(scalars, "apply_update");
  call("apply_update", {&parameter, &update, &scalars}, [&](gpu::Stream stream) {
    kernels::apply_update(p, parameter.numel(), stream);
  });
}

void clip_scale(const Tensor& sum_of_squares, const Tensor& losses, double clip_norm,
                Tensor& out) {
  check_shape(sum_of_squares, {1}, "clip_scale", "sum_of_squares");
  check_shape(out, {1}, "clip_scale", "out");
  check_contiguous(losses, "clip_scale", "losses");
  call("clip_scale", {&sum_of_squares, &losses, &out}, [&](gpu::Stream stream) {
    kernels::clip_scale(sum_of_squares.data<double>(), losses.data<double>(),
                        narrow(losses.numel(), "clip_scale", "losses"), clip_norm,
                        out.data<double>(), stream);
  });
}

}  // namespace lh::cuda
