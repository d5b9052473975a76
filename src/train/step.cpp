#include "train/step.h"

#include <cmath>
#include <utility>

#include "autograd/engine.h"
#include "backend/optim.h"
#include "optim/clip.h"
#include "ops/elementwise.h"

namespace lh {
namespace {

/// What the host wants to know of a step, f64 in one tensor on the device: loss sums by micro-batch,
/// then the squared gradient norm.
class StepNumbers {
 public:
  StepNumbers(int64_t micro_batches, Device device)
      : micro_batches_(micro_batches),
        all_(Tensor::zeros({micro_batches + 1}, DType::kF64, device)) {}

  Tensor losses() const { return all_.slice(0, 0, micro_batches_); }
  Tensor loss(int64_t micro) const { return all_.slice(0, micro, micro + 1); }
  Tensor squared_norm() const { return all_.slice(0, micro_batches_, micro_batches_ + 1); }
  Tensor on_host() const { return all_.to(kCpuDevice); }

 private:
  int64_t micro_batches_;
  Tensor all_;
};

BatchTensors take_batch(const StepContext& context, StepState& state, int64_t micro) {
  if (micro == 0 && state.ahead) return *std::exchange(state.ahead, std::nullopt);
  return BatchTensors::from(context.batch(micro), context.model.device());
}

/// Waits for the step and reads its numbers; undoes the count of an update that was not made.
void finish(const StepContext& context, const StepNumbers& numbers, double share,
            StepResult& result) {
  const Tensor host = numbers.on_host();
  const auto values = host.span<double>();
  for (int64_t micro = 0; micro < context.micro_batches; ++micro)
    result.loss += values[static_cast<size_t>(micro)] * share;
  result.grad_norm = std::sqrt(values.back());
  if (!std::isfinite(result.loss)) result.non_finite = "loss";
  else if (!std::isfinite(result.grad_norm))
    result.non_finite =
        first_non_finite_gradient(context.model.parameters()).value_or("gradient norm");
  if (!result.non_finite.empty()) context.optimizer.set_steps(context.optimizer.steps() - 1);
}

}  // namespace

StepResult train_step(const StepContext& context, double learning_rate_factor) {
  Decoder& model = context.model;
  ParameterStore& parameters = model.parameters();
  StepState fresh;
  StepState& state = context.state != nullptr ? *context.state : fresh;
  parameters.zero_grad();
  const bool recompute = context.recipe.precision.recompute == "block";
  const double share = 1 / static_cast<double>(context.valid_targets);
  const StepNumbers numbers(context.micro_batches, model.device());
  StepResult result;
  for (int64_t micro = 0; micro < context.micro_batches; ++micro) {
    if (context.stop && context.stop()) {
      result.stopped = true;
      return result;
    }
    const BatchTensors tensors = take_batch(context, state, micro);
    // Backward is twice the forward's arithmetic (gradients by input and by weight); a recomputed
    // forward is not counted as useful.
    result.flops += 3 * model.forward_flops(tensors.layout);
    const Variable total =
        model.loss(tensors.tokens, tensors.targets, tensors.layout, recompute).loss_sum;
    Tensor loss = numbers.loss(micro);
    LH_DISPATCH(model.device(), "step", sum(total.value(), loss, false));
    backward(scale(total, share));
  }
  Tensor squared_norm = numbers.squared_norm(), grad_scale = context.optimizer.grad_scale();
  grad_sum_of_squares(parameters, state.gradients, squared_norm);
  LH_DISPATCH(model.device(), "step",
              clip_scale(squared_norm, numbers.losses(), context.recipe.optim.clip_norm,
                         grad_scale));
  context.optimizer.prepare(learning_rate_factor);
  context.optimizer.update();
  if (context.next && context.state != nullptr)
    if (const std::optional<Batch> batch = context.next())
      state.ahead = BatchTensors::from(*batch, model.device());
  finish(context, numbers, share, result);
  return result;
}

}  // namespace lh
