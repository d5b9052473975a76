// Phases of SP-KV gates over a run, and what a training step does in each.
#include "train/gate_schedule.h"

#include <doctest/doctest.h>

#include "train/step.h"
#include "train_support.h"

namespace {

using namespace lh;
using namespace lh::test;

TEST_CASE("gates are soft, then anneal with a rising alpha, then hard to the end") {
  Recipe recipe;
  recipe.schedule.steps = 100;
  double last = 0;
  for (int64_t step = 0; step < 100; ++step) {
    CAPTURE(step);
    const GatePhase phase = gate_phase(recipe, step);
    CHECK(phase.mode == (step < 75   ? GateMode::kSoft
                         : step < 80 ? GateMode::kAnneal
                                     : GateMode::kHard));
    if (phase.mode != GateMode::kAnneal) continue;
    CHECK(phase.alpha > last);
    CHECK(phase.alpha < 1);
    last = phase.alpha;
  }
  CHECK(last == doctest::Approx(5.0 / 6));
}

TEST_CASE("no step is left between the phases of a short run") {
  Recipe recipe;
  int64_t& steps = recipe.schedule.steps;
  for (steps = 1; steps < 12; ++steps) {
    CHECK(gate_phase(recipe, 0).mode == GateMode::kSoft);
    for (int64_t step = 1; step < steps; ++step)
      CHECK(static_cast<int>(gate_phase(recipe, step).mode) >=
            static_cast<int>(gate_phase(recipe, step - 1).mode));
  }
}

/// Parameters before and after one step of a model whose layers prune themselves.
struct Stepped {
  std::vector<std::string> names;
  std::vector<std::vector<double>> before, after;
  double loss;
};

Stepped step(const GatePhase& phase, const std::string& recompute) {
  ModelConfig config = tiny_model();
  config.mixers = {{"self", {.kind = "sp_kv", .window = 3}}};
  config.schedule = {"self"};
  Recipe recipe;
  recipe.optim.weight_decay = 0.1;
  recipe.precision.recompute = recompute;
  Decoder model(config, DType::kF64, 3);
  const auto optimizer = make_optimizer(recipe.optim, model.parameters());
  const Batch batch = make_batch({random_document(30, 40, 1), random_document(14, 40, 2)});
  Stepped result;
  const auto values = [&] {
    std::vector<std::vector<double>> all;
    for (const auto& p : model.parameters().all()) all.push_back(to_doubles(p->master));
    return all;
  };
  for (const auto& p : model.parameters().all()) result.names.push_back(p->name);
  result.before = values();
  result.loss = train_step({.model = model,
                            .optimizer = *optimizer,
                            .recipe = recipe,
                            .batch = [&](int64_t) { return batch; },
                            .micro_batches = 1,
                            .valid_targets = batch.valid_targets,
                            .stop = {},
                            .gates = phase},
                           1)
                    .loss;
  result.after = values();
  return result;
}

TEST_CASE("soft steps train the predictor, later ones leave it and its weight decay alone") {
  for (const GateMode mode : {GateMode::kSoft, GateMode::kAnneal, GateMode::kHard}) {
    GatePhase phase;
    phase.mode = mode;
    phase.alpha = 0.5;
    const Stepped stepped = step(phase, "none");
    for (size_t i = 0; i < stepped.names.size(); ++i) {
      CAPTURE(stepped.names[i]);
      const bool predictor = stepped.names[i].find(".utility.") != std::string::npos;
      const bool trained = !predictor || mode == GateMode::kSoft;
      CHECK((stepped.before[i] != stepped.after[i]) == trained);
    }
    // A recomputed block sees the same phase.
    const Stepped again = step(phase, "block");
    CHECK(again.loss == stepped.loss);
    for (size_t i = 0; i < stepped.names.size(); ++i)
      for (size_t j = 0; j < stepped.after[i].size(); ++j)
        CHECK(std::abs(again.after[i][j] - stepped.after[i][j]) < 1e-9);
  }
}

}  // namespace
