// Teams of threads, each with its own copy of a tiny model, that train together.
#pragma once

#include <functional>

#include "config/recipe.h"
#include "optim/optimizer.h"
#include "support/ranks.h"
#include "train/step.h"
#include "train/team.h"
#include "train_support.h"

namespace lh::test {

/// Calls function(team) on `size` threads, each with its device if given; throws the first exception of the lowest
/// rank.
inline void on_teams(int size, const ParallelConfig& config,
                     const std::function<void(const Team&)>& function, std::span<const Device> devices = {}) {
  const std::shared_ptr<Store> store = make_memory_store();
  std::vector<std::exception_ptr> failures(static_cast<size_t>(size));
  {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < size; ++rank)
      threads.emplace_back([&, rank] {
        try {
          const Device device = devices.empty() ? kCpuDevice : devices[static_cast<size_t>(rank)];
          const Team team(std::make_unique<Peers>(place_of(rank, size, device), loopback(), store), config);
          function(team);
        } catch (...) {
          failures[static_cast<size_t>(rank)] = std::current_exception();
        }
      });
  }
  for (const std::exception_ptr& failure : failures)
    if (failure != nullptr) std::rethrow_exception(failure);
}

/// What a process saw of a few steps, and where its parameters ended.
struct TeamRun {
  std::vector<double> losses, norms;
  std::vector<std::vector<double>> parameters, copies;  // masters, and what ops read
  int64_t state_bytes = 0;  // of the optimizer and the masters beside what ops read
  bool operator==(const TeamRun&) const = default;
};

struct TeamSetup {
  ModelConfig model = tiny_model();
  DType dtype = DType::kF64;
  Recipe recipe;
  int64_t sequences = 8, steps = 4;
  int64_t micro_sequences = 2;
  int64_t bucket_bytes = int64_t{25} << 20;
};

/// The documents of a step, one a sequence; the same whoever trains on them.
inline Batch team_batch(int64_t step, int64_t first, int64_t count) {
  std::vector<Document> documents;
  for (int64_t i = first; i < first + count; ++i)
    documents.push_back(random_document(9 + (i * 5 + step) % 13, 40,
                                        static_cast<uint64_t>(1000 * step + i)));
  return make_batch(documents);
}

/// Steps [from, to) of a model that exists.
inline void train_steps(Decoder& model, Optimizer& optimizer, const TeamSetup& setup,
                        const Team& team, int64_t from, int64_t to, TeamRun& run) {
  StepState state;
  if (!team.alone())
    state.reducer = std::make_unique<GradientReducer>(team, model.parameters(), optimizer,
                                                      setup.bucket_bytes);
  const SequenceShare share = team.share(setup.sequences, setup.micro_sequences);
  for (int64_t step = from; step < to; ++step) {
    team.set_step(step + 1);
    const StepResult result = train_step(
        {.model = model,
         .optimizer = optimizer,
         .recipe = setup.recipe,
         .batch =
             [&](int64_t micro) {
               return team_batch(step, share.begin(micro), share.size(micro));
             },
         .micro_batches = share.micro_batches(),
         .valid_targets = team_batch(step, 0, setup.sequences).valid_targets,
         .stop = nullptr,
         .state = &state,
         .team = &team},
        1);
    run.losses.push_back(result.loss);
    run.norms.push_back(result.grad_norm);
  }
}

/// A master that processes may hold in parts.
inline Tensor whole_master(const Parameter& parameter, size_t index, const Optimizer& optimizer,
                           const Team& team) {
  if (team.alone()) return parameter.master;
  const bool parts = team.any(!parameter.has_whole_master(), "whole master");
  if (!parts) return parameter.master;
  Tensor whole = team.gather(parameter.master, optimizer.shards().counts(index), "whole master");
  if (!team.leads()) whole = Tensor::empty({parameter.numel()}, parameter.master.dtype());
  team.spread(whole, "whole master");
  return whole;
}

inline TeamRun team_run(const TeamSetup& setup, const Team& team) {
  Decoder model(setup.model, setup.dtype, 3);
  const auto optimizer =
      make_optimizer(setup.recipe.optim, model.parameters(), team.shard_place());
  TeamRun run;
  train_steps(model, *optimizer, setup, team, 0, setup.steps, run);
  for (const auto& parameter : model.parameters().all()) {
    run.parameters.push_back(
        to_doubles(whole_master(*parameter, run.parameters.size(), *optimizer, team)));
    run.copies.push_back(to_doubles(parameter->variable.value()));
    if (parameter->compute_copy().defined())
      run.state_bytes += static_cast<int64_t>(parameter->master.bytes());
  }
  for (const StateTensor& state : optimizer->state())
    run.state_bytes += static_cast<int64_t>(state.tensor.bytes());
  return run;
}

/// One run per process.
inline std::vector<TeamRun> train_team(int processes, const TeamSetup& setup) {
  std::vector<TeamRun> runs(static_cast<size_t>(processes));
  on_teams(processes, setup.recipe.parallel, [&](const Team& team) {
    runs[static_cast<size_t>(team.rank())] = team_run(setup, team);
  });
  return runs;
}

}  // namespace lh::test
