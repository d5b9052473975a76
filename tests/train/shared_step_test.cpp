// Steps that processes share: the same whether one, or several with one optimizer each or together, make them.
#include <doctest/doctest.h>

#include <cmath>

#include "backend/elementwise.h"
#include "team_support.h"

namespace {

using namespace lh;
using namespace lh::test;

TeamSetup setup_of(const std::string& optimizer, DType dtype) {
  TeamSetup setup;
  setup.dtype = dtype;
  setup.recipe.optim.kind = optimizer;
  setup.recipe.optim.learning_rate = 0.01;
  setup.recipe.optim.clip_norm = 0.5;  // below the norms of these steps
  return setup;
}

/// The parts of a run that do not depend on who holds the state.
TeamRun visible(TeamRun run) {
  run.state_bytes = 0;
  return run;
}

void check_close(const std::vector<double>& got, const std::vector<double>& want, double tolerance) {
  REQUIRE(got.size() == want.size());
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i)
    worst = std::max(worst, std::abs(got[i] - want[i]) / std::max(1e-2, std::abs(want[i])));
  CHECK(worst < tolerance);
}

TEST_CASE("processes that share the optimizer train as one process does") {
  for (const std::string optimizer : {"adamw", "muon"}) {
    const TeamSetup setup = setup_of(optimizer, DType::kF64);
    const TeamRun alone = train_team(1, setup)[0];
    for (const double norm : alone.norms) CHECK(norm > 0.5);
    for (const int processes : {2, 3, 4}) {
      CAPTURE(optimizer);
      CAPTURE(processes);
      const auto runs = train_team(processes, setup);
      for (const TeamRun& run : runs) CHECK(visible(run) == visible(runs[0]));  // bit for bit
      check_close(runs[0].losses, alone.losses, 1e-9);
      check_close(runs[0].norms, alone.norms, 1e-9);
      for (size_t p = 0; p < alone.parameters.size(); ++p)
        check_close(runs[0].parameters[p], alone.parameters[p], 1e-7);
    }
  }
}

TEST_CASE("sharing the optimizer changes no bit of the training") {
  for (const std::string optimizer : {"adamw", "muon"})
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      TeamSetup setup = setup_of(optimizer, dtype);
      setup.model.tie_embeddings = dtype == DType::kF32;
      setup.recipe.optim.groups.emplace_back();
      setup.recipe.optim.groups.back().pattern = "*k_proj*";
      setup.recipe.optim.groups.back().freeze = true;
      for (const int processes : {2, 3}) {
        CAPTURE(optimizer);
        CAPTURE(processes);
        setup.recipe.parallel.zero = 0;
        const auto each = train_team(processes, setup);
        setup.recipe.parallel.zero = 1;
        const auto shared = train_team(processes, setup);
        for (size_t r = 0; r < each.size(); ++r) CHECK(visible(each[r]) == visible(shared[r]));
      }
    }
}

TEST_CASE("processes with shares of one sequence share the optimizer too") {
  TeamSetup setup = setup_of("muon", DType::kF64);
  const TeamRun alone = train_team(1, setup)[0];
  setup.recipe.parallel.context = 2;
  const auto runs = train_team(4, setup);
  for (const TeamRun& run : runs) CHECK(visible(run) == visible(runs[0]));
  check_close(runs[0].norms, alone.norms, 1e-9);
  for (size_t p = 0; p < alone.parameters.size(); ++p)
    check_close(runs[0].parameters[p], alone.parameters[p], 1e-7);
}

TEST_CASE("each process holds its share of the optimizer's memory") {
  for (const std::string optimizer : {"adamw", "muon"}) {
    TeamSetup setup = setup_of(optimizer, DType::kF32);
    setup.model.hidden_size = 64;
    setup.model.intermediate_size = 96;
    setup.model.num_layers = 4;
    setup.steps = 1;
    const auto whole = static_cast<double>(train_team(1, setup)[0].state_bytes);
    for (const int processes : {2, 4}) {
      double sum = 0;
      for (const TeamRun& run : train_team(processes, setup)) {
        const auto bytes = static_cast<double>(run.state_bytes);
        CHECK(bytes == doctest::Approx(whole / processes).epsilon(0.05));
        sum += bytes;
      }
      CHECK(sum == whole);
    }
  }
}

/// Gradients that differ by process: of `both` everywhere, of `some` in process 1 alone, of `none` nowhere.
TEST_CASE("a parameter that met no row in a process or in all of them") {
  for (const int64_t zero : {0, 1}) {
    ParallelConfig config;
    config.zero = zero;
    std::vector<std::vector<std::vector<double>>> values(3);
    std::vector<double> norms(3);
    on_teams(3, config, [&](const Team& team) {
      ParameterStore store(DType::kF32, 1);
      for (const char* name : {"both", "some", "none"})
        store.create(name, {4, 5}, ParameterKind::kMatrix, Init::constant(1));
      OptimConfig optim;
      optim.weight_decay = 0.1;
      const auto optimizer = make_optimizer(optim, store, team.shard_place());
      const auto give = [&](const char* name, float value) {
        Parameter& parameter = *store.find(name);
        parameter.variable.zero_grad();
        Tensor gradient = parameter.variable.grad_or_zeros();
        cpu::fill(gradient, value);
      };
      give("both", static_cast<float>(team.rank() + 1));
      if (team.rank() == 1) give("some", 2);
      GradientReducer reducer(team, store, *optimizer);
      reducer.sum();
      Tensor squared = Tensor::zeros({1}, DType::kF64);
      reducer.squared_norm(squared);
      optimizer->step(1, 1);
      if (optimizer->is_shared()) reducer.share_parameters();
      const auto rank = static_cast<size_t>(team.rank());
      norms[rank] = squared.item();
      for (const auto& parameter : store.all()) values[rank].push_back(to_doubles(parameter->master));
      if (store.find("none")->variable.grad().defined()) norms[rank] = -1;
    });
    for (size_t r = 0; r < 3; ++r) {
      CHECK(norms[r] == 20 * (6 * 6) + 20 * (2 * 2));
      for (const double value : values[r][0]) CHECK(value < 1);
      for (const double value : values[r][1]) CHECK(value < 1);
      for (const double value : values[r][2]) CHECK(value == 1);  // no decay either
      CHECK(values[r] == values[0]);
    }
  }
}

TEST_CASE("a gradient that is not finite in one process is named by all and nothing is updated") {
  TeamSetup setup = setup_of("adamw", DType::kF32);
  std::vector<std::string> names(3);
  std::vector<std::vector<double>> masters(3);
  on_teams(3, setup.recipe.parallel, [&](const Team& team) {
    Decoder model(setup.model, setup.dtype, 3);
    const auto optimizer = make_optimizer(setup.recipe.optim, model.parameters(), team.shard_place());
    const SequenceShare share = team.share(setup.sequences, 8);
    const StepResult result = train_step(
        {.model = model,
         .optimizer = *optimizer,
         .recipe = setup.recipe,
         .batch = [&](int64_t) { return team_batch(0, share.first, share.count); },
         .valid_targets = 0,  // gradients are multiplied by 1 / 0
         .stop = nullptr,
         .team = &team},
        1);
    const auto rank = static_cast<size_t>(team.rank());
    names[rank] = result.non_finite;
    masters[rank] = to_doubles(model.parameters().all()[0]->master);
    if (optimizer->steps() != 0) names[rank] = "counted";
  });
  const Decoder fresh(setup.model, setup.dtype, 3);
  for (size_t r = 0; r < 3; ++r) {
    CHECK(names[r] == names[0]);
    CHECK(masters[r] == to_doubles(fresh.parameters().all()[0]->master));
  }
  CHECK(names[0] != "");
}

}  // namespace
