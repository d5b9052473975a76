// Recipes of local and global heads from the densities of a model with self-pruning layers.
#include "train/hybrid_recipe.h"

#include <doctest/doctest.h>

#include "config/load.h"

namespace {

using namespace lh;

const char* kRecipe = R"(
run: {name: pruned, out_dir: here}
model:
  vocab_size: 100
  hidden_size: 64
  intermediate_size: 128
  num_layers: 4
  num_heads: 4
  num_kv_heads: 2
  mixers:
    pruned: {kind: sp_kv, window: 32, threshold: 0.4, utility_hidden: 20, rope: false}
    local: {kind: sliding_window, window: 8}
  schedule: [pruned, pruned, pruned, local]
data:
  train: [{path: a.h5}]
  tokenizer: bytes
  seq_tokens: 128
optim:
  groups:
    - {pattern: "*.utility.*", lr_multiplier: 5}
    - {pattern: "*.norm.*", weight_decay: 0}
schedule: {steps: 10, batch_tokens: 128, gates: {soft_steps: 5}}
)";

Recipe parse(const std::string& text) { return parse_recipe_text(text, "test.yaml", {}, "."); }

MixerFigure density() {
  MixerFigure d;
  d.mixers["model.layers.0.self_attn"] = {{1, 10}, {8, 10}};
  d.mixers["model.layers.1.self_attn"] = {{9, 10}, {7, 10}};
  d.mixers["model.layers.2.self_attn"] = {{0, 10}, {2, 10}};
  return d;
}

TEST_CASE("the densest heads become global, layers take the simplest mixer, the recipe is valid") {
  const Recipe recipe = parse(kRecipe);
  const Recipe hybrid = hybrid_recipe(recipe, density(), 3);
  CHECK(hybrid.model.schedule ==
        std::vector<std::string>{"pruned_heads_1", "pruned_global", "pruned_local", "local"});
  const auto& mixers = hybrid.model.mixers;
  CHECK(mixers.size() == 4);
  CHECK(mixers.at("pruned_heads_1") ==
        MixerConfig{.kind = "sp_kv", .window = 32, .rope = false, .global_kv_heads = {1}});
  CHECK(mixers.at("pruned_global") == MixerConfig{.kind = "softmax", .rope = false});
  CHECK(mixers.at("pruned_local") ==
        MixerConfig{.kind = "sliding_window", .window = 32, .rope = false});
  CHECK(mixers.at("local") == recipe.model.mixers.at("local"));
  REQUIRE(hybrid.optim.groups.size() == 1);
  CHECK(hybrid.optim.groups[0].pattern == "*.norm.*");
  CHECK(hybrid.run.name == "pruned_hybrid_3");
  CHECK(hybrid.run.out_dir == "here_hybrid_3");
  CHECK(parse(dump_recipe(hybrid)) == hybrid);  // which validates it
}

TEST_CASE("a name that another mixer has is not taken from it") {
  Recipe recipe = parse(kRecipe);
  recipe.model.mixers["pruned_local"] = recipe.model.mixers.at("local");  // of window 8
  recipe.model.schedule.back() = "pruned_local";
  const Recipe hybrid = hybrid_recipe(recipe, density(), 3);
  CHECK(hybrid.model.schedule ==
        std::vector<std::string>{"pruned_heads_1", "pruned_global", "pruned_local_", "pruned_local"});
  CHECK(hybrid.model.mixers.at("pruned_local_").window == 32);
  CHECK(hybrid.model.mixers.at("pruned_local").window == 8);
}

TEST_CASE("a hybrid of a model whose predictor alone learned learns all, and ignores the predictors of its origin") {
  Recipe recipe = parse(kRecipe);
  ParamGroupConfig all, predictor;
  all.pattern = "*";
  all.freeze = true;
  predictor.pattern = "*.utility.*";
  recipe.optim.groups = {all, predictor};
  recipe.init.path = "runs/gated";
  const Recipe hybrid = hybrid_recipe(recipe, density(), 3);
  CHECK(hybrid.optim.groups.empty());
  CHECK(hybrid.init.ignore == std::vector<std::string>{"*.utility.*"});
  recipe.init.fresh = {"*.utility.*"};  // the origin had none
  CHECK(hybrid_recipe(recipe, density(), 3).init.ignore.empty());
}

TEST_CASE("no head, all heads, and more than there are") {
  const Recipe recipe = parse(kRecipe);
  for (const auto& [heads, kind] : {std::pair{0, "sliding_window"}, {6, "softmax"}}) {
    const Recipe hybrid = hybrid_recipe(recipe, density(), heads);
    for (int64_t layer = 0; layer < 3; ++layer)
      CHECK(hybrid.model.mixer_of_layer(layer).kind == kind);
  }
  CHECK_THROWS_WITH_AS(hybrid_recipe(recipe, density(), 7), doctest::Contains("0 to 6"), ConfigError);
  CHECK_THROWS_WITH_AS(hybrid_recipe(recipe, density(), -1), doctest::Contains("got -1"), ConfigError);
  CHECK_THROWS_WITH_AS(hybrid_recipe(recipe, {}, 1), doctest::Contains("sp_kv layers"), ConfigError);
}

}  // namespace
