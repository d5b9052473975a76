// Options of SP-KV gates in training steps: what a step adds to the loss, and the same gates however it is cut.
#include <doctest/doctest.h>

#include "autograd/engine.h"
#include "team_support.h"
#include "train/gate_schedule.h"

namespace {

using namespace lh;
using namespace lh::test;

ModelConfig pruned_model() {
  ModelConfig config = tiny_model();
  config.mixers = {{"self", {.kind = "sp_kv", .window = 3}}, {"full", {.kind = "softmax"}}};
  config.schedule = {"self", "full"};
  return config;
}

constexpr int64_t kSequence = 20, kSequences = 6;

/// Sequences of a step: a document or two, and filling up to kSequence rows, which has no targets.
Batch batch_of(int64_t first, int64_t count) {
  Batch batch;
  batch.segment_offsets = {0};
  for (int64_t s = first; s < first + count; ++s) {
    std::vector<Document> documents = {random_document(9 + s, 40, static_cast<uint64_t>(s))};
    if (s % 2 == 0) documents.push_back(random_document(6, 40, static_cast<uint64_t>(100 + s)));
    const Batch part = make_batch(documents);
    batch.valid_targets += part.valid_targets;
    const auto begin = static_cast<int64_t>(batch.tokens.size());
    batch.tokens.insert(batch.tokens.end(), part.tokens.begin(), part.tokens.end());
    batch.targets.insert(batch.targets.end(), part.targets.begin(), part.targets.end());
    batch.positions.insert(batch.positions.end(), part.positions.begin(), part.positions.end());
    for (size_t i = 1; i < part.segment_offsets.size(); ++i)
      batch.segment_offsets.push_back(begin + part.segment_offsets[i]);
    for (int64_t i = 0, rest = kSequence - part.segment_offsets.back(); i < rest; ++i) {
      batch.tokens.push_back(0);
      batch.targets.push_back(-1);
      batch.positions.push_back(static_cast<int32_t>(i));
    }
    if (batch.segment_offsets.back() < begin + kSequence) batch.segment_offsets.push_back(begin + kSequence);
  }
  batch.first_row = first * kSequence;
  return batch;
}

int64_t document_tokens() {
  Batch batch = batch_of(0, kSequences);
  number_rows(batch);
  return std::count_if(batch.row_numbers.begin(), batch.row_numbers.end(),
                       [](int64_t number) { return number >= 0; });
}

struct Stepped {
  StepResult result;
  std::vector<std::vector<double>> gradients;
};

/// One step by `processes` of which `context` share each sequence.
Stepped step(Recipe recipe, int processes, int64_t context, int64_t micro_sequences,
             const std::function<void(Decoder&)>& change = {}) {
  recipe.schedule.steps = 4;
  recipe.run.seed = 11;
  recipe.parallel.context = context;
  recipe.parallel.zero = 0;
  recipe.optim.clip_norm = 0;
  Stepped stepped;
  on_teams(processes, recipe.parallel, [&](const Team& team) {
    Decoder model(pruned_model(), DType::kF64, 3);
    if (change) change(model);
    const auto optimizer = make_optimizer(recipe.optim, model.parameters(), team.shard_place());
    const SequenceShare share = team.share(kSequences, micro_sequences);
    const StepResult result = train_step(
        {.model = model,
         .optimizer = *optimizer,
         .recipe = recipe,
         .batch = [&](int64_t micro) { return batch_of(share.begin(micro), share.size(micro)); },
         .micro_batches = share.micro_batches(),
         .valid_targets = batch_of(0, kSequences).valid_targets,
         .stop = nullptr,
         .gates = gate_phase(recipe, 1),
         .document_tokens = document_tokens(),
         .team = &team},
        1);
    if (!team.leads()) return;
    stepped.result = result;
    for (const auto& p : model.parameters().all())
      stepped.gradients.push_back(to_doubles(p->variable.grad()));
  });
  return stepped;
}

void check_equal(const Stepped& got, const Stepped& want) {
  CHECK(got.result.loss == doctest::Approx(want.result.loss).epsilon(1e-12));
  CHECK(got.result.density_loss == doctest::Approx(want.result.density_loss).epsilon(1e-12));
  REQUIRE(got.gradients.size() == want.gradients.size());
  double worst = 0;
  for (size_t p = 0; p < want.gradients.size(); ++p)
    for (size_t i = 0; i < want.gradients[p].size(); ++i)
      worst = std::max(worst, std::abs(got.gradients[p][i] - want.gradients[p][i]));
  CHECK(worst < 1e-12);
}

Recipe with(const std::string& kind, double density_weight) {
  Recipe recipe;
  recipe.schedule.gates.kind = kind;
  recipe.schedule.gates.density_weight = density_weight;
  return recipe;
}

TEST_CASE("the density term is -lambda times the mean utility of the step's documents") {
  // With weights of zeros behind a bias every utility is known.
  const auto known = [](Decoder& model) {
    for (const auto& p : model.parameters().all()) {
      if (p->name.find("utility.down") == std::string::npos) continue;
      for (double& value : p->master.span<double>()) value = p->name.ends_with("bias") ? 1.5 : 0;
    }
  };
  const double u = 1 / (1 + std::exp(-1.5));
  CHECK(document_tokens() < kSequence * kSequences);
  const Stepped plain = step(with("soft", 0), 1, 1, 6, known);
  CHECK(plain.result.density_loss == 0);
  for (const double weight : {0.5, -2.0}) {
    const Stepped pulled = step(with("soft", weight), 1, 1, 6, known);
    CHECK(pulled.result.density_loss == doctest::Approx(-weight * u).epsilon(1e-12));
    CHECK(pulled.result.loss == plain.result.loss);  // stays the cross-entropy
    // The bias of each of two heads has half of the derivative.
    const Decoder names(pruned_model(), DType::kF64, 3);
    for (size_t p = 0; p < names.parameters().all().size(); ++p) {
      if (!names.parameters().all()[p]->name.ends_with("utility.down.bias")) continue;
      for (size_t h = 0; h < 2; ++h)
        CHECK(pulled.gradients[p][h] - plain.gradients[p][h] ==
              doctest::Approx(-weight * u * (1 - u) / 2).epsilon(1e-9));
    }
  }
}

TEST_CASE("with the density term gradients are central differences of the loss and the term") {
  const Recipe recipe = with("soft", 3);
  const Stepped whole = step(recipe, 1, 1, 6);
  CHECK(whole.result.density_loss < 0);
  const Decoder start(pruned_model(), DType::kF64, 3);
  for (size_t p = 0; p < start.parameters().all().size(); ++p) {
    const std::string& name = start.parameters().all()[p]->name;
    if (name.find("layers.0.") == std::string::npos) continue;  // its attention, predictor and norms
    CAPTURE(name);
    const size_t i = whole.gradients[p].size() / 2;
    const auto objective = [&](double move) {
      const StepResult result = step(recipe, 1, 1, 6, [&](Decoder& model) {
                                  model.parameters().all()[p]->master.span<double>()[i] += move;
                                }).result;
      return result.loss + result.density_loss;
    };
    CHECK(whole.gradients[p][i] ==
          doctest::Approx((objective(1e-5) - objective(-1e-5)) / 2e-5).epsilon(1e-5).scale(1e-2));
  }
}

TEST_CASE("drawn gates and the density term are the same however a step is cut") {
  for (const Recipe& base : {with("bernoulli", 0), with("bernoulli", 0.7), with("soft", 0.7)}) {
    CAPTURE(base.schedule.gates.kind);
    const Stepped whole = step(base, 1, 1, 6);
    for (const int64_t micro : {1, 2, 4}) check_equal(step(base, 1, 1, micro), whole);
    for (const int64_t context : {1, 2})
      for (const int64_t micro : {1, 3}) check_equal(step(base, 2, context, micro), whole);
    check_equal(step(base, 4, 2, 2), whole);
    Recipe recompute = base;
    recompute.precision.recompute = "block";
    check_equal(step(recompute, 1, 1, 2), whole);
    check_equal(step(recompute, 2, 2, 2), whole);
  }
  Recipe other = with("bernoulli", 0);
  other.schedule.steps = 4;
  CHECK(gate_phase(other, 1).draw_seed != gate_phase(other, 2).draw_seed);
  CHECK(gate_phase(other, 3).mode == GateMode::kHard);  // without annealing
}

TEST_CASE("a frozen language model learns its predictor alone") {
  Recipe recipe = with("soft", 0);
  recipe.optim.weight_decay = 0.1;
  recipe.optim.clip_norm = 0.01;
  recipe.optim.groups = {{"*", {}, {}, true}, {"*.utility.*", 5, {}, false}};
  GatePhase soft;
  soft.mode = GateMode::kSoft;
  for (const std::string kind : {"adamw", "muon"})
    for (const std::string recompute : {"none", "block"}) {
      recipe.optim.kind = kind;
      recipe.precision.recompute = recompute;
      Decoder model(pruned_model(), DType::kF64, 3);
      const Decoder before(pruned_model(), DType::kF64, 3);
      const auto optimizer = make_optimizer(recipe.optim, model.parameters());
      const StepResult result = train_step(
          {.model = model,
           .optimizer = *optimizer,
           .recipe = recipe,
           .batch = [&](int64_t) { return batch_of(0, kSequences); },
           .micro_batches = 1,
           .valid_targets = batch_of(0, kSequences).valid_targets,
           .stop = nullptr,
           .gates = soft},
          1);
      double squares = 0;
      for (size_t p = 0; p < model.parameters().all().size(); ++p) {
        const Parameter& now = *model.parameters().all()[p];
        CAPTURE(now.name);
        const bool learns = now.name.find(".utility.") != std::string::npos;
        CHECK((to_doubles(now.master) != to_doubles(before.parameters().all()[p]->master)) == learns);
        if (!learns) continue;  // no part of the norm that clipping looks at
        for (const double g : to_doubles(now.variable.grad())) squares += g * g;
      }
      CHECK(squares > 0);
      CHECK(result.grad_norm == doctest::Approx(std::sqrt(squares)).epsilon(1e-12));
      // Optimizer state is of what learns: two moments, or one momentum of matrices.
      for (const StateTensor& state : optimizer->state())
        CHECK(state.name.find(".utility.") != std::string::npos);
    }
}

}  // namespace
