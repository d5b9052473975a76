// Checkpoints of runs whose optimizer is shared: the file is that of one process, and any number resumes from it.
#include <doctest/doctest.h>

#include "checkpoint/checkpoint_folder.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/training_state.h"
#include "support/folder.h"
#include "team_support.h"
#include "train/saved_run.h"
#include "train/training_data.h"

namespace {

using namespace lh;
using namespace lh::test;

TaskConfig small_recall() {
  TaskConfig task;
  task.kind = "mqar";
  task.length = 24;
  task.pairs = 3;
  task.vocab = 12;
  return task;
}

TeamSetup setup_of(const std::string& optimizer, DType dtype = DType::kF64) {
  TeamSetup setup;
  setup.dtype = dtype;
  setup.recipe.optim.kind = optimizer;
  setup.recipe.optim.learning_rate = 0.01;
  setup.recipe.data.tokenizer = "integers:60";
  setup.recipe.data.seq_tokens = 32;
  setup.recipe.schedule.batch_tokens = 256;
  setup.recipe.schedule.steps = 10;
  setup.recipe.data.train = {
      {.path = "", .task = small_recall(), .weight = 1}};
  setup.recipe.model = setup.model;
  setup.recipe.model.vocab_size = setup.model.vocab_size = 60;
  return setup;
}

/// Trains `processes` from the newest checkpoint in `folder`, or from the start, up to `step`, and saves.
TeamRun go_on(int processes, const TeamSetup& setup, const std::filesystem::path& folder, int64_t step,
              bool resume) {
  std::vector<TeamRun> runs(static_cast<size_t>(processes));
  on_teams(processes, setup.recipe.parallel, [&](const Team& team) {
    TeamRun& run = runs[static_cast<size_t>(team.rank())];
    const auto tokenizer = make_tokenizer(setup.recipe.data.tokenizer);
    const TrainingBatches data = open_training_data(setup.recipe, *tokenizer);
    Decoder model(setup.model, setup.dtype, resume ? 77 : 3);  // weights come from the file
    const auto optimizer =
        make_optimizer(setup.recipe.optim, model.parameters(), team.shard_place());
    const RunParts parts{setup.recipe, *tokenizer, data, model, *optimizer, &team};
    RunProgress progress;
    // Only the leader sees the folder.
    if (resume) {
      const auto found = resume_run(team.leads() ? folder : "/nowhere", parts);
      if (!found) throw ConfigError("nothing to resume from");
      progress = *found;
    }
    train_steps(model, *optimizer, setup, team, progress.step, step, run);
    progress.step = step;
    if (save_run(folder, parts, progress, false).empty() == team.leads())
      throw ConfigError("the leader writes");
  });
  return runs[0];
}

/// The tensors of the newest checkpoint.
std::map<std::string, std::vector<double>> saved(const TeamSetup& setup, const std::filesystem::path& folder) {
  const TrainingStateFile file(*latest_checkpoint(folder) / "state.h5");
  Decoder model(setup.model, setup.dtype, 0);
  const auto optimizer = make_optimizer(setup.recipe.optim, model.parameters());
  std::vector<NamedTensor> targets;
  for (const auto& parameter : model.parameters().all())
    targets.push_back({"weight." + parameter->name, parameter->master});
  for (const StateTensor& state : optimizer->state())
    targets.push_back({"optimizer." + state.name, state.tensor});
  file.restore(targets);
  CHECK(file.names().size() == targets.size());
  std::map<std::string, std::vector<double>> values;
  for (const NamedTensor& target : targets) values[target.name] = to_doubles(target.tensor);
  return values;
}

double worst_difference(const std::map<std::string, std::vector<double>>& a,
                        const std::map<std::string, std::vector<double>>& b) {
  double worst = 0;
  for (const auto& [name, values] : a)
    for (size_t i = 0; i < values.size(); ++i)
      worst = std::max(worst, std::abs(values[i] - b.at(name)[i]) /
                                  std::max(1e-2, std::abs(values[i])));
  return worst;
}

TEST_CASE("a checkpoint of several owners is the one that a single process writes") {
  for (const std::string optimizer : {"adamw", "muon"}) {
    TeamSetup setup = setup_of(optimizer);
    const Folder one, owners, each;
    go_on(1, setup, one.path(), 3, false);
    go_on(3, setup, owners.path(), 3, false);
    CHECK(worst_difference(saved(setup, owners.path()), saved(setup, one.path())) < 1e-7);
    setup.recipe.parallel.zero = 0;
    go_on(3, setup, each.path(), 3, false);
    CHECK(saved(setup, each.path()) == saved(setup, owners.path()));  // bit for bit
  }
}

TEST_CASE("a run saved by two processes goes on with one or three as if it had not stopped") {
  for (const std::string optimizer : {"adamw", "muon"})
    for (const int processes : {1, 2, 3}) {
      const TeamSetup setup = setup_of(optimizer);
      const Folder whole, parts;
      const TeamRun straight = go_on(1, setup, whole.path(), 6, false);
      go_on(2, setup, parts.path(), 3, false);
      const TeamRun rest = go_on(processes, setup, parts.path(), 6, true);
      REQUIRE(rest.losses.size() == 3);
      for (size_t i = 0; i < 3; ++i)
        CHECK(rest.losses[i] == doctest::Approx(straight.losses[i + 3]).epsilon(1e-9));
      CHECK(worst_difference(saved(setup, parts.path()), saved(setup, whole.path())) < 1e-6);
    }
}

TEST_CASE("processes that resume continue bit for bit") {
  for (const DType dtype : {DType::kF64, DType::kBF16})  // bf16: masters are in parts
    for (const std::string optimizer : {"adamw", "muon"}) {
      TeamSetup setup = setup_of(optimizer, dtype);
      const Folder whole, parts, each;
      go_on(3, setup, whole.path(), 5, false);
      go_on(3, setup, parts.path(), 2, false);
      go_on(3, setup, parts.path(), 5, true);
      CHECK(saved(setup, parts.path()) == saved(setup, whole.path()));
      setup.recipe.parallel.zero = 0;
      go_on(3, setup, each.path(), 5, false);
      CHECK(saved(setup, each.path()) == saved(setup, whole.path()));
    }
}

TEST_CASE("weights for inference are those to resume from") {
  const TeamSetup setup = setup_of("muon", DType::kBF16);
  const Folder folder;
  go_on(2, setup, folder.path(), 2, false);
  const auto state = saved(setup, folder.path());
  const SafetensorsFile weights(*latest_checkpoint(folder.path()) / "model.safetensors");
  for (const std::string& name : weights.names())
    CHECK(to_doubles(weights.read(name)) == state.at("weight." + name));
}

}  // namespace
