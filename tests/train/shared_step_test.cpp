// Steps that processes share: the same whether one, or several with one optimizer each or together, make them.
#include <doctest/doctest.h>

#include <cmath>

#include "autograd/engine.h"
#include "backend/elementwise.h"
#include "ops/elementwise.h"
#include "optim/param_groups.h"
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

TEST_CASE("what is frozen stays whoever shares the optimizer, and so may everything") {
  for (const char* frozen : {"*embed*", "*"})
    for (const std::string recompute : {"none", "block"})
      for (const int64_t zero : {0, 1}) {
        CAPTURE(frozen);
        CAPTURE(recompute);
        CAPTURE(zero);
        TeamSetup setup = setup_of("muon", DType::kF64);
        setup.recipe.precision.recompute = recompute;
        setup.recipe.parallel.zero = zero;
        setup.recipe.parallel.overlap = true;
        setup.recipe.optim.groups.emplace_back();
        setup.recipe.optim.groups.back().pattern = frozen;
        setup.recipe.optim.groups.back().freeze = true;
        const TeamRun alone = train_team(1, setup)[0];
        const auto together = train_team(2, setup);
        const Decoder before(setup.model, setup.dtype, 3);  // as train_team's
        for (const TeamRun& run : together) {
          check_close(run.losses, alone.losses, 1e-9);
          check_close(run.norms, alone.norms, 1e-9);
          for (size_t p = 0; p < run.parameters.size(); ++p) {
            const Parameter& parameter = *before.parameters().all()[p];
            const bool stays = run.parameters[p] == to_doubles(parameter.master);
            CHECK_MESSAGE(stays == glob_match(frozen, parameter.name), parameter.name);
          }
        }
        for (const double norm : alone.norms) CHECK((norm == 0) == (frozen == std::string("*")));
      }
}

TEST_CASE("sums made while backward runs change no bit of the training") {
  for (const std::string recompute : {"none", "block"})
    for (const int64_t zero : {0, 1}) {
      CAPTURE(recompute);
      CAPTURE(zero);
      TeamSetup setup = setup_of("muon", DType::kF32);
      setup.model.tie_embeddings = recompute == "none";
      setup.steps = 3;
      setup.bucket_bytes = 2000;  // a dozen buckets
      setup.recipe.precision.recompute = recompute;
      setup.recipe.parallel.zero = zero;
      setup.recipe.parallel.overlap = false;
      const auto after = train_team(2, setup);
      setup.recipe.parallel.overlap = true;
      const auto beside = train_team(2, setup);
      for (size_t r = 0; r < after.size(); ++r) CHECK(after[r] == beside[r]);
    }
}

TEST_CASE("buckets leave in their own order while backward runs") {
  ParallelConfig config;
  std::vector<std::vector<std::string>> orders(2);
  std::vector<int> early(2);
  on_teams(2, config, [&](const Team& team) {
    // One parameter a bucket; the newest op's gradient is final first.
    ParameterStore store(DType::kF32, 1);
    const int64_t elements = 1000;
    for (const char* name : {"a", "b", "c", "d"})
      store.create(name, {elements}, ParameterKind::kBias, Init::constant(1));
    const auto optimizer = make_optimizer({}, store, team.shard_place());
    GradientReducer reducer(team, store, *optimizer, 4 * elements);
    Variable x = store.find("a")->variable;
    for (const char* name : {"b", "c", "d"}) x = multiply(x, store.find(name)->variable);
    const uint64_t before = team.gradients()->collectives();
    Tensor seed = Tensor::empty({elements}, DType::kF32);
    cpu::fill(seed, static_cast<double>(team.rank() + 1));
    // Waits inside backward, before the gradient of "a": what left by then left early.
    const auto rank = static_cast<size_t>(team.rank());
    BackwardWatch watch = *reducer.watch();
    watch.is_final = [&, original = watch.is_final](const LeafGradient* leaf) {
      original(leaf);
      for (const auto& parameter : store.all())
        if (parameter->variable.leaf_gradient() == leaf) orders[rank].push_back(parameter->name);
      if (orders[rank].back() != "c") return;
      for (int i = 0; i < 3000 && team.gradients()->collectives() == before; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      early[rank] = team.gradients()->collectives() > before ? 1 : 0;
    };
    backward(x, seed, &watch);
    reducer.sum();
    Tensor squared = Tensor::zeros({1}, DType::kF64);
    reducer.squared_norm(squared);
    if (squared.item() != 4.0 * 9.0 * static_cast<double>(elements)) early[rank] = -1;
  });
  for (size_t r = 0; r < 2; ++r) {
    CHECK(orders[r].size() == 4);
    CHECK(orders[r].front() == "d");
    CHECK(early[r] == 1);
  }
}

TEST_CASE("what goes wrong while sums are made beside backward is the error of the step") {
  ParallelConfig config;
  std::vector<std::string> errors(2);
  on_teams(2, config, [&](const Team& team) {
    ParameterStore store(DType::kF32, 1);
    // Processes that do not have the same model.
    store.create("w", {3 + team.rank()}, ParameterKind::kBias, Init::constant(1));
    const auto optimizer = make_optimizer({}, store, team.shard_place());
    GradientReducer reducer(team, store, *optimizer);
    const Variable& w = store.find("w")->variable;
    Tensor seed = Tensor::zeros({3 + team.rank()}, DType::kF32);
    backward(multiply(w, w), seed, reducer.watch());
    for (int i = 0; i < 2; ++i) {  // it stays
      try {
        reducer.sum();
      } catch (const CommError& error) {
        errors[static_cast<size_t>(team.rank())] += error.what();
      }
    }
  });
  for (const std::string& error : errors) {
    CHECK(error.find("'gradients'") != std::string::npos);
    CHECK(error.find("different places") != error.rfind("different places"));
  }
}

TEST_CASE("a process that fails in backward does not wait for sums that nobody else makes") {
  ParallelConfig config;
  const auto begin = std::chrono::steady_clock::now();
  on_teams(2, config, [&](const Team& team) {
    if (team.rank() == 0) {
      ParameterStore store(DType::kF32, 1);
      store.create("w", {4}, ParameterKind::kBias, Init::constant(1));
      const auto optimizer = make_optimizer({}, store, team.shard_place());
      GradientReducer reducer(team, store, *optimizer);
      const Variable& w = store.find("w")->variable;
      backward(multiply(w, w), Tensor::zeros({4}, DType::kF32), reducer.watch());
      std::this_thread::sleep_for(std::chrono::milliseconds(200));  // its thread is in a collective now
    }
    team.world().barrier("end");
  });
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(15));  // exchanges may take 30
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

TEST_CASE("each process holds its share of the optimizer's memory, masters of a bf16 model included") {
  for (const std::string optimizer : {"adamw", "muon"})
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      TeamSetup setup = setup_of(optimizer, dtype);
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
