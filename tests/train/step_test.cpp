// Loss and gradients mean the same however a step is cut or packed.
#include "train/step.h"

#include <doctest/doctest.h>

#include <limits>
#include <numeric>

#include "train_support.h"

namespace {

using namespace lh;
using namespace lh::test;

struct Outcome {
  StepResult result;
  std::vector<std::vector<double>> gradients;
};

Outcome run(const std::vector<std::vector<Document>>& micro_batches, DType dtype,
            const std::string& recompute = "none") {
  Recipe recipe;
  recipe.precision.recompute = recompute;
  Decoder model(tiny_model(), dtype, 3);
  const auto optimizer = make_optimizer(recipe.optim, model.parameters());
  int64_t valid = 0;
  for (const auto& documents : micro_batches) valid += make_batch(documents).valid_targets;
  Outcome outcome;
  outcome.result = train_step(
      {.model = model,
       .optimizer = *optimizer,
       .recipe = recipe,
       .batch = [&](int64_t i) { return make_batch(micro_batches[static_cast<size_t>(i)]); },
       .micro_batches = static_cast<int64_t>(micro_batches.size()),
       .valid_targets = valid,
       .stop = {}},
      1);
  for (const auto& parameter : model.parameters().all())
    outcome.gradients.push_back(to_doubles(parameter->variable.grad()));
  return outcome;
}

double difference(const Outcome& a, const Outcome& b) {
  double worst = 0, size = 0;
  for (size_t p = 0; p < a.gradients.size(); ++p)
    for (size_t i = 0; i < a.gradients[p].size(); ++i) {
      worst = std::max(worst, std::abs(a.gradients[p][i] - b.gradients[p][i]));
      size = std::max(size, std::abs(a.gradients[p][i]));
    }
  return worst / size;
}

const Document kA = random_document(9, 40, 1), kB = random_document(23, 40, 2),
               kC = random_document(4, 40, 3), kD = random_document(14, 40, 4);

TEST_CASE("the loss is total loss over total valid tokens of the global batch") {
  Decoder model(tiny_model(), DType::kF64, 3);
  double total = 0;
  int64_t valid = 0;
  for (const Document& document : {kA, kB, kC, kD}) {
    const auto losses = textbook_losses(model, document);
    total += std::accumulate(losses.begin(), losses.end(), 0.0);
    valid += make_batch({document}).valid_targets;
  }
  const Outcome outcome = run({{kA, kB}, {kC, kD}}, DType::kF64);
  CHECK(outcome.result.loss == doctest::Approx(total / static_cast<double>(valid)).epsilon(1e-12));
}

TEST_CASE("accumulation packing order and recomputation change gradients by rounding only") {
  for (const auto& [dtype, tolerance] : {std::pair{DType::kF64, 1e-12}, {DType::kF32, 1e-5}}) {
    const Outcome whole = run({{kA, kB, kC, kD}}, dtype);
    CHECK(difference(whole, run({{kA}, {kB, kC}, {kD}}, dtype)) < tolerance);
    CHECK(difference(whole, run({{kA}, {kB}, {kC}, {kD}}, dtype)) < tolerance);
    CHECK(difference(whole, run({{kD, kB, kA, kC}}, dtype)) < tolerance);
    CHECK(difference(whole, run({{kC, kD}, {kB, kA}}, dtype, "block")) < tolerance);
    CHECK(run({{kD, kB, kA, kC}}, dtype).result.loss ==
          doctest::Approx(whole.result.loss).epsilon(1e-6));
  }
}

TEST_CASE("the gradient is that of the mean loss by central differences") {
  Decoder model(tiny_model(), DType::kF64, 3);
  const Outcome outcome = run({{kA, kC}, {kD}}, DType::kF64);
  const auto mean_loss = [&] {
    double total = 0;
    int64_t valid = 0;
    for (const Document& document : {kA, kC, kD}) {
      const auto losses = textbook_losses(model, document);
      total += std::accumulate(losses.begin(), losses.end(), 0.0);
      valid += make_batch({document}).valid_targets;
    }
    return total / static_cast<double>(valid);
  };
  const auto& parameters = model.parameters().all();
  for (size_t p = 0; p < parameters.size(); ++p) {
    // A few elements of each parameter, every kind of layer among them.
    const auto values = parameters[p]->master.span<double>();
    for (size_t i = 1; i < values.size(); i += 1 + values.size() / 3) {
      const double kept = values[i];
      values[i] = kept + 1e-5;
      const double up = mean_loss();
      values[i] = kept - 1e-5;
      const double down = mean_loss();
      values[i] = kept;
      CHECK_MESSAGE(
          outcome.gradients[p][i] == doctest::Approx((up - down) / 2e-5).epsilon(1e-6).scale(1e-2),
          parameters[p]->name);
    }
  }
}

TEST_CASE("a document never sees another") {
  Decoder model(tiny_model(), DType::kF32, 3);
  const GradMode off(false);
  const auto losses = [&](const std::vector<Document>& documents) {
    const BatchTensors t = BatchTensors::from(make_batch(documents));
    return to_doubles(model.loss(t.tokens, t.targets, t.layout).losses);
  };
  const auto first = losses({kA, kB, kC});
  const auto second = losses({random_document(9, 40, 77), kB, random_document(4, 40, 78)});
  for (size_t i = 8; i < 8 + 22; ++i) CHECK(first[i] == second[i]);
}

TEST_CASE("a stop or a bad loss updates nothing") {
  Recipe recipe;
  Decoder model(tiny_model(), DType::kF32, 3);
  const auto optimizer = make_optimizer(recipe.optim, model.parameters());
  const auto before = to_doubles(model.parameters().all()[0]->master);
  StepContext context{.model = model,
                      .optimizer = *optimizer,
                      .recipe = recipe,
                      .batch = [&](int64_t) { return make_batch({kA}); },
                      .micro_batches = 2,
                      .valid_targets = 14,
                      .stop = [] { return true; }};
  CHECK(train_step(context, 1).stopped);
  context.stop = {};
  model.parameters().find("model.norm.weight")->master.span<float>()[3] =
      std::numeric_limits<float>::quiet_NaN();
  CHECK(train_step(context, 1).non_finite == "loss");
  CHECK(optimizer->steps() == 0);
  CHECK(to_doubles(model.parameters().all()[0]->master) == before);
}

}  // namespace
