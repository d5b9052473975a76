// Tasks from recipe to accuracy: figures against the textbook, and a tiny model that learns one.
#include <doctest/doctest.h>

#include <cmath>

#include "config/load.h"
#include "data/data_support.h"
#include "optim/schedule.h"
#include "train/evaluate_task.h"
#include "train/run_state.h"
#include "train/step.h"
#include "train/training_data.h"
#include "train_support.h"

namespace {

using namespace lh;
using namespace lh::test;

constexpr TokenId kEnd = 59;

TaskBatches recall_batches(int64_t examples) {
  return TaskBatches(Task({.kind = "mqar", .length = 24, .pairs = 3, .vocab = 12}),
                     {.seq_tokens = 50, .seed = 3, .stream = 1, .end_of_text = kEnd}, examples);
}

TEST_CASE("loss and accuracy of a task are those of each example alone") {
  const Decoder model(tiny_model(60), DType::kF64, 2);
  const Decoder single(tiny_model(60), DType::kF32, 2);
  const TaskBatches batches = recall_batches(40);
  double loss = 0;
  int64_t right = 0, exact = 0;
  for (int64_t i = 0; i < 40; ++i) {
    const GradMode off(false);
    const Example example = batches.task().example(3, 1, i);
    Document inputs = {kEnd};
    inputs.insert(inputs.end(), example.symbols.begin(), example.symbols.end() - 1);
    const auto logits = to_doubles(model.logits(model.forward(
        Tensor::from(inputs, {24}), SequenceLayout::packed(std::vector<int64_t>{0, 24}))));
    int64_t hits = 0;
    for (size_t at = 0; at < 24; ++at) {
      if (!example.is_answer[at]) continue;
      const double* row = &logits[at * 60];
      double sum = 0;
      bool largest = true;
      for (int v = 0; v < 60; ++v) {
        sum += std::exp(row[v]);
        largest = largest && row[v] <= row[example.symbols[at]];
      }
      loss += std::log(sum) - row[example.symbols[at]];
      hits += largest ? 1 : 0;
    }
    right += hits;
    exact += hits == 3 ? 1 : 0;
  }
  for (const int64_t at_once : {1, 3, 100}) {
    const auto result = evaluate_task(single, batches, at_once, nullptr, nullptr);
    REQUIRE(result);
    CHECK(result->kind == "mqar");
    CHECK(result->targets == 120);
    CHECK(result->examples == 40);
    CHECK(result->loss == doctest::Approx(loss / 120).epsilon(1e-6));
    CHECK(result->accuracy == doctest::Approx(static_cast<double>(right) / 120));
    CHECK(result->exact == doctest::Approx(static_cast<double>(exact) / 40));
  }
  CHECK(right > 0);  // or the comparison says little
}

TEST_CASE("text and tasks are evaluated together and a stop names no unfinished task") {
  const Folder folder;
  const Decoder model(tiny_model(60), DType::kF32, 2);
  ValidData data;
  CHECK(data.empty());
  data.text.emplace(std::vector{counting_shard(folder / "v.h5", {10, 37, 5}, 0, 60)}, 50);
  data.tasks.push_back(recall_batches(4));
  data.tasks.push_back(recall_batches(8));
  const EvalResult text = evaluate(model, *data.text, 2), all = evaluate(model, data, 2);
  CHECK(all.loss == text.loss);
  CHECK(all.targets == text.targets);
  REQUIRE(all.tasks.size() == 2);
  CHECK(all.tasks[1].examples == 8);
  data.text.reset();
  const EvalResult tasks = evaluate(model, data, 2);
  CHECK(tasks.targets == 12 + 24);
  CHECK(tasks.loss ==
        doctest::Approx((tasks.tasks[0].loss * 12 + tasks.tasks[1].loss * 24) / 36));
  CHECK(tasks.text_bytes == 0);
  int asked = 0;
  const EvalResult cut = evaluate(model, data, 1, [&] { return ++asked > 4; });
  CHECK(cut.stopped);
  CHECK(cut.tasks.size() == 1);
}

Recipe copy_recipe() {
  return parse_recipe_text(
      "model: {hidden_size: 32, intermediate_size: 64, num_layers: 2, num_heads: 2,\n"
      "        max_position: 128, qk_norm: true}\n"
      "data:\n"
      "  train: [{task: {kind: selective_copy, length: 12, items: 3, vocab: 5}}]\n"
      "  valid_examples: 200\n"
      "  tokenizer: \"integers:8\"\n"
      "  seq_tokens: 26\n"  // two examples and a rest
      "optim: {kind: muon, learning_rate: 1.0e-2, weight_decay: 0}\n"
      "schedule: {steps: 300, batch_tokens: 416, warmup_steps: 20}\n"
      "precision: {compute: fp32}\n",
      "copy.yaml");
}

TEST_CASE("a tiny model learns selective copy within seconds") {
  const Recipe recipe = copy_recipe();
  const auto tokenizer = make_tokenizer(recipe.data.tokenizer);
  const TrainingBatches data = open_training_data(recipe, *tokenizer);
  const ValidData valid = open_valid_data(recipe, *tokenizer);
  Decoder model(resolve_model(recipe, *tokenizer), DType::kF32, 1);
  CHECK(model.config().vocab_size == 8);
  const auto optimizer = make_optimizer(recipe.optim, model.parameters());
  const EvalResult before = evaluate(model, valid, 8);
  CHECK(before.tasks[0].accuracy < 0.4);
  for (int64_t step = 0; step < recipe.schedule.steps; ++step) {
    CHECK(data.valid_targets(step) == 16 * 2 * 3);
    train_step({.model = model,
                .optimizer = *optimizer,
                .recipe = recipe,
                .batch = [&](int64_t) { return data.make_batch(step, 0, 16); },
                .valid_targets = data.valid_targets(step),
                .stop = nullptr},
               learning_rate_factor(recipe.schedule, step));
  }
  const EvalResult after = evaluate(model, valid, 8);
  MESSAGE(after.tasks[0].line());
  CHECK(after.tasks[0].accuracy > 0.95);
  CHECK(after.loss < 0.2);
}

TEST_CASE("a vocabulary too small for a task is refused with both numbers") {
  Recipe recipe = copy_recipe();
  const auto small = make_integer_tokenizer(7);
  try {
    open_training_data(recipe, *small);
    FAIL("accepted");
  } catch (const ConfigError& error) {
    const std::string text = error.what();
    CHECK_MESSAGE(text.find("needs 7 symbols") != std::string::npos, text);
    CHECK_MESSAGE(text.find("has 7 tokens; use integers:8") != std::string::npos, text);
  }
  CHECK_THROWS_AS(open_valid_data(recipe, *small), ConfigError);
  recipe.data.valid_examples = 0;
  CHECK(open_valid_data(recipe, *small).empty());
}

}  // namespace
