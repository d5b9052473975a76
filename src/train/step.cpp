#include "train/step.h"

#include <cmath>
#include <utility>

#include "autograd/engine.h"
#include "backend/optim.h"
#include "optim/clip.h"
#include "ops/elementwise.h"
#include "train/gate_schedule.h"

namespace lh {

StepNumbers::StepNumbers(int64_t micro_batches, Device device)
    : micro_batches_(micro_batches),
      all_(Tensor::empty({micro_batches + 1}, DType::kF64, device)) {}

namespace {

double share_of_target(const StepContext& context) {
  return 1 / static_cast<double>(context.valid_targets);
}

bool shared(const StepContext& context) {
  return context.team != nullptr && !context.team->alone();
}

/// Processes that share a step stop before it or after it, all together: train_step asks.
bool must_stop(const StepContext& context) {
  return !shared(context) && context.stop && context.stop();
}

BatchTensors tensors_of(const StepContext& context, Batch batch) {
  if (context.recipe.schedule.gates.needs_row_numbers()) number_rows(batch);
  return shared(context) ? context.team->tensors(batch, context.model.device())
                         : BatchTensors::from(batch, context.model.device());
}

void enqueue_micro_batch(const StepContext& context, const BatchTensors& batch, Tensor loss,
                         bool accumulate, const BackwardWatch* watch = nullptr) {
  const bool recompute = context.recipe.precision.recompute == "block";
  const Variable total =
      context.model.loss(batch.tokens, batch.targets, batch.layout, recompute).loss_sum;
  LH_DISPATCH(loss.device(), "step", sum(total.value(), loss, accumulate));
  const Variable root = scale(total, share_of_target(context));
  // Where all is frozen, in a phase of the gates perhaps, nothing is to be learned.
  if (root.requires_grad()) backward(root, {}, watch);
}

/// The optimizer must be prepared. Nothing is updated when a loss or a gradient is not finite.
void enqueue_update(const StepContext& context, const StepNumbers& numbers, StepState& state) {
  Tensor squared_norm = numbers.squared_norm(), grad_scale = context.optimizer.grad_scale();
  if (shared(context)) state.reducer->squared_norm(squared_norm);
  else
    grad_sum_of_squares(context.model.parameters(), state.gradients, squared_norm);
  LH_DISPATCH(squared_norm.device(), "step",
              clip_scale(squared_norm, numbers.losses(), context.recipe.optim.clip_norm,
                         grad_scale));
  context.optimizer.update();
}

/// "gradient of ..." for the first parameter whose gradient is not finite on some process.
std::string bad_gradient(const StepContext& context) {
  const auto& parameters = context.model.parameters().all();
  auto first = static_cast<int64_t>(
      first_non_finite_gradient(context.model.parameters()).value_or(parameters.size()));
  if (shared(context)) first = context.team->least(first, "first bad gradient");
  const auto index = static_cast<size_t>(first);
  return index < parameters.size() ? "gradient of " + parameters[index]->name : "gradient norm";
}

/// Waits for the step and reads its numbers; undoes the count of an update that was not made.
void finish(const StepContext& context, const StepNumbers& numbers, StepResult& result) {
  const Tensor host = numbers.on_host();
  const auto values = host.span<double>();
  for (int64_t micro = 0; micro < numbers.micro_batches(); ++micro)
    result.loss += values[static_cast<size_t>(micro)] * share_of_target(context);
  result.grad_norm = std::sqrt(values.back());
  if (!std::isfinite(result.loss)) result.non_finite = "loss";
  else if (!std::isfinite(result.grad_norm)) result.non_finite = bad_gradient(context);
  if (!result.non_finite.empty()) context.optimizer.set_steps(context.optimizer.steps() - 1);
}

/// The gates of a step, with the term of the loss that is theirs alone.
class StepGates {
 public:
  explicit StepGates(const StepContext& context) : phase_(context.gates) {
    const double weight = context.recipe.schedule.gates.density_weight;
    if (weight == 0 || !phase_.learns()) return;
    phase_.pull = density_pull(weight, context.model.config(), context.document_tokens);
    utilities_ = Tensor::zeros({1}, DType::kF64, context.model.device());
    phase_.utilities = &utilities_;
  }
  StepGates(const StepGates&) = delete;
  StepGates& operator=(const StepGates&) = delete;

  const GatePhase& phase() const { return phase_; }

  /// The term, of all processes. Waits for the device.
  double loss(const StepContext& context) const {
    if (!utilities_.defined()) return 0;
    Tensor sum = utilities_.to(kCpuDevice);
    if (shared(context)) context.team->sum(sum, "utilities");
    return phase_.pull * sum.item();
  }

 private:
  GatePhase phase_;
  Tensor utilities_;  // [1] f64
};

/// The rest of a step after this process's micro-batches: sums over all processes, then the update,
/// the same on each or of each one's own parts.
StepResult finish_together(const StepContext& context, double learning_rate_factor,
                           const StepNumbers& numbers, StepState& state, StepResult result) {
  const Team& team = *context.team;
  GradientReducer& reducer = *state.reducer;
  reducer.sum();
  // Devices do not add f64, and the host has to wait for the gradients anyway.
  Tensor loss = numbers.loss(0), host_loss = loss.to(kCpuDevice);
  team.sum(host_loss, "loss");
  if (!loss.device().is_cpu()) loss.copy_bytes_from(host_loss);
  Tensor flops = Tensor::from(std::vector<double>{result.flops}, {1});
  team.sum(flops, "arithmetic");
  result.flops = flops.item();
  context.optimizer.prepare(learning_rate_factor);
  enqueue_update(context, numbers, state);
  if (context.optimizer.is_shared()) reducer.share_parameters();
  finish(context, numbers, result);
  return result;
}

/// Micro-batches are enqueued as they come.
StepResult eager_step(const StepContext& context, double learning_rate_factor, StepState& state) {
  const bool together = shared(context);  // losses of all processes become one number
  const StepNumbers numbers(together ? 1 : context.micro_batches, context.model.device());
  StepResult result;
  const StepGates gates(context);
  context.model.parameters().zero_grad();
  if (together && state.reducer == nullptr)
    state.reducer = std::make_unique<GradientReducer>(*context.team, context.model.parameters(),
                                                      context.optimizer);
  for (int64_t micro = 0; micro < context.micro_batches; ++micro) {
    if (must_stop(context)) return {.stopped = true};
    BatchTensors batch = micro == 0 && state.ahead
                             ? *std::exchange(state.ahead, std::nullopt)
                             : tensors_of(context, context.batch(micro));
    batch.layout.set_gates(gates.phase());  // one sent ahead was made in another step's phase
    result.flops += context.model.training_flops(batch.layout);
    const bool last = micro + 1 == context.micro_batches;
    enqueue_micro_batch(context, batch, numbers.loss(together ? 0 : micro), together && micro > 0,
                        together && last ? state.reducer->watch() : nullptr);
  }
  if (together) {
    result.density_loss = gates.loss(context);
    return finish_together(context, learning_rate_factor, numbers, state, result);
  }
  context.optimizer.prepare(learning_rate_factor);
  enqueue_update(context, numbers, state);
  if (context.next && context.state != nullptr)
    if (const std::optional<Batch> batch = context.next())
      state.ahead = tensors_of(context, *batch);
  result.density_loss = gates.loss(context);
  finish(context, numbers, result);
  return result;
}

/// All micro-batches are put in place first, then the whole step is one launch.
StepResult recorded_step(const StepContext& context, double learning_rate_factor,
                         StepState& state) {
  Decoder& model = context.model;
  if (state.recorded == nullptr)
    state.recorded = std::make_unique<RecordedStep>(model.device(), model.config().max_position);
  if (!state.numbers || state.numbers->micro_batches() != context.micro_batches)
    state.numbers.emplace(context.micro_batches, model.device());
  RecordedStep& recorded = *state.recorded;
  const StepNumbers& numbers = *state.numbers;
  StepResult result;
  for (int64_t micro = 0; micro < context.micro_batches; ++micro) {
    if (must_stop(context)) return {.stopped = true};
    if (micro > 0 || !std::exchange(state.first_in_place, false))
      recorded.put(micro, context.batch(micro));
    result.flops += context.model.training_flops(recorded.batch(micro).layout);
  }
  context.optimizer.prepare(learning_rate_factor);
  recorded.run({static_cast<double>(context.micro_batches),
                static_cast<double>(context.valid_targets)},
               [&] {
                 model.parameters().zero_grad();
                 for (int64_t micro = 0; micro < context.micro_batches; ++micro)
                   enqueue_micro_batch(context, recorded.batch(micro), numbers.loss(micro), false);
                 enqueue_update(context, numbers, state);
               });
  if (context.next)
    if (const std::optional<Batch> batch = context.next()) {
      recorded.put(0, *batch);
      state.first_in_place = true;
    }
  finish(context, numbers, result);
  return result;
}

bool may_be_recorded(const StepContext& context) {
  if constexpr (kWithCuda)
    return context.state != nullptr && !shared(context) && !context.model.device().is_cpu() &&
           context.recipe.precision.cuda_graphs == "auto" && context.model.is_recordable() &&
           !gpu::synchronous();
  return false;
}

}  // namespace

StepResult train_step(const StepContext& context, double learning_rate_factor) {
  LH_CHECK(shared(context) || !context.optimizer.is_shared(),
           "[step] an optimizer of {} owners needs their team", context.optimizer.shards().owners());
  StepState fresh;
  StepState& state = context.state != nullptr ? *context.state : fresh;
  if (shared(context) && context.team->any(context.stop && context.stop(), "stop signal"))
    return {.stopped = true};
  return may_be_recorded(context) ? recorded_step(context, learning_rate_factor, state)
                                  : eager_step(context, learning_rate_factor, state);
}

}  // namespace lh
