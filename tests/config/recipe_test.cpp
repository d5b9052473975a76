// What was read can be printed and read again, for shipped and for random recipes.
#include <doctest/doctest.h>

#include "base/philox.h"
#include "config_support.h"

namespace {

using namespace lh;
using namespace lh::test;

TEST_CASE("shipped recipes are valid and their dump means the same") {
  for (const auto& path : shipped_recipes()) {
    CAPTURE(path.string());
    const Recipe recipe = load_recipe(path);
    const std::string dump = dump_recipe(recipe);
    const Recipe again = parse_recipe_text(dump, "dump.yaml");
    CHECK(again == recipe);
    CHECK(dump_recipe(again) == dump);
    CHECK(recipe_digest(again) == recipe_digest(recipe));
  }
}

TEST_CASE("a mixture of shards and tasks is read, printed and read again") {
  const Recipe recipe = parse(
      small_recipe(),
      {"data.train=[{path: a.h5, weight: 3}, {task: {kind: needle, length: 64, depth: 0.5}}, "
       "{task: {kind: regression, pairs: 3, dimension: 2, noise: 0.25}, weight: 0.5}]",
       "data.valid_examples=20", "data.tokenizer=integers:300", "eval.every_steps=5"});
  REQUIRE(recipe.data.train.size() == 3);
  CHECK(!recipe.data.train[0].task);
  CHECK(recipe.data.train[1].weight == 1);
  CHECK(recipe.data.train[1].task->str() == "needle length 64 pairs 1 vocab 64 value_tokens 7 depth 0.5");
  CHECK(recipe.data.train[2].task->shape().tokens == 9);
  CHECK(recipe.data.train[2].task->shape().answers == 3);
  CHECK(recipe.data.train[2].task->shape().symbols == 128);
  const std::string dump = dump_recipe(recipe);
  CHECK_MESSAGE(parse_recipe_text(dump, "dump.yaml") == recipe, dump);
  CHECK(recipe_digest(recipe) !=
        recipe_digest(parse(small_recipe(), {"data.train=[{path: a.h5, weight: 3}]"})));
  CHECK(contains(explain_recipe("data.train.*.task.depth"), "haystack"));
  CHECK(integers_vocab("integers:300") == 300);
  CHECK(!integers_vocab("integers:3x"));
  CHECK(!integers_vocab("bytes"));
}

TEST_CASE("awkward text survives the dump") {
  Recipe recipe = parse(small_recipe());
  Philox random(7);
  const std::vector<std::string> pieces = {
      "true", "null", "~", "1e3", "- ",  ": ",   "#",    "'", "\"", "\\", "\n", "\t", " ", "é",
      "𝄞",    "{",    "]", "a",   "0x1", "\x01", "\x7f", "%", "&x", "*y", "!z", "|",  ">", "@"};
  for (int i = 0; i < 2000; ++i) {
    recipe.run.name.clear();
    for (uint64_t n = random.below(5); n < 5; ++n)
      recipe.run.name += pieces[random.below(static_cast<uint32_t>(pieces.size()))];
    recipe.eval.prompt = i % 7 == 0 ? "" : recipe.run.name + "x";
    recipe.optim.learning_rate = random.uniform() * 1e-3 + 1e-300;
    CAPTURE(dump_recipe(recipe));
    CHECK(parse_recipe_text(dump_recipe(recipe), "dump.yaml") == recipe);
  }
}

TEST_CASE("recipes that mean different runs have different digests") {
  const std::string one = recipe_digest(parse(small_recipe()));
  CHECK(recipe_digest(parse(small_recipe(), {"run.seed=2"})) != one);
  CHECK(recipe_digest(parse(small_recipe() + "# a comment\n")) == one);
}

TEST_CASE("the schedule of mixers repeats over the layers") {
  const Recipe r = parse(small_recipe(), {"model.mixers={a: {kind: softmax}, b: {kind: "
                                          "sliding_window, window: 8}}",
                                          "model.schedule=[a, b]", "model.num_layers=6"});
  for (int64_t layer = 0; layer < 6; ++layer)
    CHECK(r.model.mixer_name_of_layer(layer) == (layer % 2 == 0 ? "a" : "b"));
}

}  // namespace
