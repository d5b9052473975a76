#include "train/step.h"

#include <cmath>

#include "autograd/engine.h"
#include "optim/clip.h"
#include "ops/elementwise.h"
#include "train/batch_tensors.h"

namespace lh {

StepResult train_step(const StepContext& context, double learning_rate_factor) {
  Decoder& model = context.model;
  ParameterStore& parameters = model.parameters();
  parameters.zero_grad();
  const bool recompute = context.recipe.precision.recompute == "block";
  const double share = 1 / static_cast<double>(context.valid_targets);
  StepResult result;
  for (int64_t micro = 0; micro < context.micro_batches; ++micro) {
    if (context.stop && context.stop()) {
      result.stopped = true;
      return result;
    }
    const Batch batch = context.batch(micro);
    BatchTensors tensors = BatchTensors::from(batch, model.device());
    tensors.layout.set_gates(context.gates);
    // Backward is twice the forward's arithmetic (gradients by input and by weight); a recomputed
    // forward is not counted as useful.
    result.flops += 3 * model.forward_flops(tensors.layout);
    const Variable sum =
        model.loss(tensors.tokens, tensors.targets, tensors.layout, recompute).loss_sum;
    result.loss += sum.value().item() * share;
    if (!std::isfinite(result.loss)) {
      result.non_finite = "loss";
      return result;
    }
    backward(scale(sum, share));
  }
  result.grad_norm = global_grad_norm(parameters);
  if (!std::isfinite(result.grad_norm)) {
    result.non_finite = first_non_finite_gradient(parameters).value_or("gradient norm");
    return result;
  }
  context.optimizer.step(learning_rate_factor,
                         clip_factor(context.recipe.optim.clip_norm, result.grad_norm));
  return result;
}

}  // namespace lh
