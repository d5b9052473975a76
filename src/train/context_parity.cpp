#include "train/context_parity.h"

#include <cmath>
#include <exception>
#include <thread>

#include "backend/elementwise.h"
#include "base/math.h"
#include "optim/schedule.h"
#include "train/gate_schedule.h"
#include "train/initial_weights.h"
#include "train/run_state.h"
#include "train/step.h"
#include "train/training_data.h"

namespace lh {
namespace {

struct StepRecord {
  double loss = 0, grad_norm = 0;
  std::vector<std::pair<std::string, Tensor>> gradients;
};

/// A copy of a summed gradient, put together from its owners' parts where there are several.
Tensor whole_gradient(const Tensor& gradient, size_t index, const Optimizer& optimizer,
                      const Team& team) {
  if (optimizer.is_shared())
    return team.gather(part_of(gradient, optimizer.shards().part(index, optimizer.owner())),
                       optimizer.shards().counts(index), "gradients");
  Tensor kept = Tensor::empty_like(gradient);
  LH_DISPATCH(kCpuDevice, "parity", copy(gradient, kept));
  return kept;
}

/// The steps of one rank; what rank 0 saw is returned.
std::vector<StepRecord> train_rank(const Recipe& recipe, const Tokenizer& tokenizer,
                                   const TrainingBatches& data, const Team& team, int64_t steps) {
  Decoder model(resolve_model(recipe, tokenizer), DType::kF64,
                static_cast<uint64_t>(recipe.run.seed));
  load_initial_weights(recipe, tokenizer, model, &team);
  const auto optimizer = make_optimizer(recipe.optim, model.parameters(), team.shard_place());
  const SequenceShare share = team.share(recipe.schedule.batch_tokens / recipe.data.seq_tokens,
                                         recipe.micro_batch_tokens() / recipe.data.seq_tokens);
  std::vector<StepRecord> records;
  StepState state;
  for (int64_t step = 0; step < steps; ++step) {
    team.set_step(step + 1);
    const StepContext context{
        .model = model,
        .optimizer = *optimizer,
        .recipe = recipe,
        .batch = [&](int64_t micro) {
          return data.make_batch(step, share.begin(micro), share.size(micro));
        },
        .micro_batches = share.micro_batches(),
        .valid_targets = data.valid_targets(step),
        .stop = nullptr,
        .gates = gate_phase(recipe, step),
        .document_tokens = data.document_tokens(step),
        .state = &state,
        .team = &team};
    optimizer->set_weight_decay_factor(weight_decay_factor(recipe.schedule, step));
    const StepResult result = train_step(context, learning_rate_factor(recipe.schedule, step));
    StepRecord record{result.loss, result.grad_norm, {}};
    for (size_t i = 0; i < model.parameters().all().size(); ++i) {
      const Parameter& parameter = *model.parameters().all()[i];
      const Tensor gradient = parameter.variable.grad();
      if (gradient.defined())
        record.gradients.emplace_back(parameter.name, whole_gradient(gradient, i, *optimizer, team));
    }
    records.push_back(std::move(record));
  }
  return records;
}

std::vector<StepRecord> train_split(Recipe recipe, const Tokenizer& tokenizer,
                                    const TrainingBatches& data, int context, int64_t steps) {
  recipe.parallel.context = context;
  recipe.parallel.data = 1;
  const std::shared_ptr<Store> store = make_memory_store();
  std::vector<StepRecord> leaders;
  std::vector<std::exception_ptr> failures(static_cast<size_t>(context));
  {
    std::vector<std::jthread> ranks;
    for (int rank = 0; rank < context; ++rank)
      ranks.emplace_back([&, rank] {
        try {
          const PeerPlace place{.rank = rank, .size = context, .master = {}};
          const Team team(std::make_unique<Peers>(place, GlooOptions{"127.0.0.1"}, store),
                          recipe.parallel);
          auto records = train_rank(recipe, tokenizer, data, team, steps);
          if (rank == 0) leaders = std::move(records);
        } catch (...) {
          failures[static_cast<size_t>(rank)] = std::current_exception();
        }
      });
  }
  // Where one fails the others lose it: its own reason comes first.
  std::exception_ptr consequence;
  for (const std::exception_ptr& failure : failures) {
    try {
      if (failure != nullptr) std::rethrow_exception(failure);
    } catch (const CommError&) {
      if (consequence == nullptr) consequence = failure;
    }
  }
  if (consequence != nullptr) std::rethrow_exception(consequence);
  return leaders;
}

double relative(double value, double reference) {
  return std::abs(value - reference) / std::max(std::abs(reference), 1e-300);
}

ContextParity compare(const StepRecord& got, const StepRecord& want) {
  ContextParity row;
  row.loss = got.loss;
  row.grad_norm = got.grad_norm;
  row.loss_error = relative(got.loss, want.loss);
  row.norm_error = relative(got.grad_norm, want.grad_norm);
  LH_CHECK_EQ(got.gradients.size(), want.gradients.size(), "[cp-parity] parameters with gradients");
  for (size_t p = 0; p < got.gradients.size(); ++p) {
    const auto a = got.gradients[p].second.span<double>(), b = want.gradients[p].second.span<double>();
    double largest = 0, error = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      largest = std::max(largest, std::abs(b[i]));
      const double difference = std::abs(a[i] - b[i]);
      error = larger_or_nan(error, difference);
    }
    const double share = error / std::max(largest, 1e-300);
    if (row.worst_parameter.empty() || (!std::isnan(row.worst_error) && !(share <= row.worst_error))) {
      row.worst_error = share;
      row.worst_parameter = got.gradients[p].first;
    }
  }
  return row;
}

}  // namespace

double ContextParity::largest() const {
  return larger_or_nan(larger_or_nan(loss_error, norm_error), worst_error);
}

std::vector<ContextParity> context_parity(const Recipe& recipe, const std::vector<int>& contexts,
                                          int64_t steps,
                                          const std::function<void(const ContextParity&)>& on_row) {
  for (const int context : contexts)
    if (context < 1) fail<ConfigError>("--cp: expected counts of at least 1, got {}", context);
  const auto tokenizer = make_tokenizer(recipe.data.tokenizer);
  const TrainingBatches data = open_training_data(recipe, *tokenizer);
  const auto reference = train_split(recipe, *tokenizer, data, 1, steps);
  std::vector<ContextParity> rows;
  for (const int context : contexts) {
    const auto records =
        context == 1 ? reference : train_split(recipe, *tokenizer, data, context, steps);
    for (size_t step = 0; step < records.size(); ++step) {
      ContextParity row = compare(records[step], reference[step]);
      row.context = context;
      row.step = static_cast<int64_t>(step) + 1;
      if (on_row) on_row(row);
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

}  // namespace lh
