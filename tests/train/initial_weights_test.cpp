// Runs that start from another model's weights, and models that do not fit the weights they meet.
#include "train/initial_weights.h"

#include <doctest/doctest.h>

#include "base/file.h"
#include "checkpoint/checkpoint_folder.h"
#include "checkpoint/safetensors.h"
#include "config/load.h"
#include "support/folder.h"
#include "team_support.h"
#include "train/saved_run.h"
#include "train/trainer.h"

namespace {

using namespace lh;
using namespace lh::test;
namespace fs = std::filesystem;

Recipe recipe_in(const Folder& folder, const std::string& name, const std::string& mixer,
                 const std::vector<std::string>& sets = {}) {
  std::vector<std::string> all = {"run.out_dir=" + (folder / name).string(),
                                  "model.mixers={attn: " + mixer + "}"};
  all.insert(all.end(), sets.begin(), sets.end());
  return parse_recipe_text(R"(
run: {device: cpu, threads: 1}
model:
  hidden_size: 16
  intermediate_size: 24
  num_layers: 2
  num_heads: 4
  num_kv_heads: 2
  head_dim: 4
  max_position: 64
data:
  train: [{task: {kind: mqar, length: 24, pairs: 3, vocab: 12}}]
  tokenizer: integers:16
  seq_tokens: 32
optim: {learning_rate: 0.01}
schedule: {steps: 3, batch_tokens: 128}
precision: {compute: fp32}
eval: {sample_tokens: 0}
)",
                           "test.yaml", all);
}

using Weights = std::map<std::string, std::vector<double>>;

Weights saved(const Recipe& recipe) {
  const SafetensorsFile file(*latest_checkpoint(recipe.checkpoint_folder()) / "model.safetensors");
  Weights weights;
  for (const std::string& name : file.names()) weights[name] = to_doubles(file.read(name));
  return weights;
}

void train_alone(const Recipe& recipe, bool resume) {
  train(recipe, resume, {}, *make_team(peers_of_environment(), recipe, "test"));
}

/// The parameters a run begins with: those after steps that change nothing.
Weights first_weights(Recipe recipe) {
  recipe.optim.learning_rate = 1e-300;
  recipe.optim.weight_decay = 0;
  recipe.schedule.steps = 1;
  train_alone(recipe, false);
  return saved(recipe);
}

const char* const kSoftmax = "{kind: softmax}";
const char* const kSelfPruned = "{kind: sp_kv, window: 4}";

TEST_CASE("a run starts from the weights of another, fresh parameters from its own seed") {
  const Folder folder;
  const Recipe trunk = recipe_in(folder, "trunk", kSoftmax);
  train_alone(trunk, false);
  const Weights old = saved(trunk);
  const Weights drawn = first_weights(recipe_in(folder, "drawn", kSelfPruned));
  const auto path = "init.path=" + (folder / "trunk").string();
  const Weights branch = first_weights(
      recipe_in(folder, "branch", kSelfPruned, {path, "init.fresh=[\"*.utility.*\"]"}));
  CHECK(branch.size() == drawn.size());
  for (const auto& [name, values] : branch) {
    CAPTURE(name);
    const bool fresh = name.find(".utility.") != std::string::npos;
    CHECK(values == (fresh ? drawn.at(name) : old.at(name)));
  }
  // Fresh wins where both have it; without that all is taken.
  const Weights part = first_weights(
      recipe_in(folder, "part", kSoftmax, {path, "init.fresh=[\"*.mlp.*\"]"}));
  for (const auto& [name, values] : part)
    CHECK(values == (name.find(".mlp.") != std::string::npos ? drawn : old).at(name));
  CHECK(first_weights(recipe_in(folder, "same", kSoftmax, {path})) == old);
  // And back again, leaving the predictor out.
  const Weights back = first_weights(
      recipe_in(folder, "back", kSoftmax,
                {"init.path=" + (folder / "branch").string(), "init.ignore=[\"*.utility.*\"]"}));
  CHECK(back == old);
}

TEST_CASE("a resumed run goes on from its own checkpoint, whatever its init says") {
  const Folder folder;
  train_alone(recipe_in(folder, "trunk", kSoftmax), false);
  const std::vector<std::string> init = {"init.path=" + (folder / "trunk").string()};
  Recipe whole = recipe_in(folder, "whole", kSoftmax, init);
  whole.schedule.steps = 6;
  whole.schedule.kind = "constant";
  train_alone(whole, false);
  Recipe cut = whole;
  cut.run.out_dir = (folder / "cut").string();
  cut.schedule.steps = 3;
  train_alone(cut, false);
  fs::remove_all(folder / "trunk");
  cut.schedule.steps = 6;
  train_alone(cut, true);
  CHECK(saved(cut) == saved(whole));
}

TEST_CASE("a Hugging Face folder in bf16 starts a model of any precision") {
  const Folder folder;
  Recipe recipe = recipe_in(folder, "run", kSoftmax, {"init.path=" + (folder / "hf").string()});
  const auto tokenizer = make_tokenizer(recipe.data.tokenizer);
  const ModelConfig config = resolve_model(recipe, *tokenizer);
  Decoder source(config, DType::kBF16, 77);
  fs::create_directories(folder / "hf");
  std::vector<NamedTensor> halves;
  for (const auto& p : source.parameters().all()) halves.push_back({p->name, p->compute_copy()});
  write_safetensors(folder / "hf/model.safetensors", halves);
  const std::string json =
      R"({"model_type": "llama", "vocab_size": 16, "hidden_size": 16, "intermediate_size": 24,
          "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
          "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": true})";
  put(folder / "hf/config.json", json);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF64}) {
    Decoder model(config, dtype, 1);
    load_initial_weights(recipe, *tokenizer, model, nullptr);
    for (size_t i = 0; i < halves.size(); ++i) {
      const Parameter& p = *model.parameters().all()[i];
      CHECK(to_doubles(p.master) == to_doubles(halves[i].tensor));
      CHECK(to_doubles(p.variable.value()) == to_doubles(halves[i].tensor));
    }
  }
  // Tensors of the same shapes, cut into other heads.
  std::string other = json;
  other.replace(other.find("heads\": 4"), 9, "heads\": 2");
  other.replace(other.find("heads\": 2, \"head_dim\": 4"), 24, "heads\": 1, \"head_dim\": 8");
  put(folder / "hf/config.json", other);
  Decoder model(config, DType::kF32, 1);
  const std::string error =
      error_of<ConfigError>([&] { load_initial_weights(recipe, *tokenizer, model, nullptr); });
  CHECK(contains(error, "model.num_heads: expected 2, got 4"));
  CHECK(contains(error, "model.head_dim: expected 8, got 4"));
}

TEST_CASE("processes start from what the leader read") {
  const Folder folder;
  train_alone(recipe_in(folder, "trunk", kSoftmax), false);
  Recipe recipe = recipe_in(folder, "branch", kSelfPruned,
                            {"init.path=" + (folder / "trunk").string(), "init.fresh=[\"*.utility.*\"]"});
  const auto tokenizer = make_tokenizer(recipe.data.tokenizer);
  std::vector<std::vector<std::vector<double>>> ranks(3);
  on_teams(3, recipe.parallel, [&](const Team& team) {
    Decoder model(resolve_model(recipe, *tokenizer), DType::kBF16, 1);
    Recipe seen = recipe;
    if (!team.leads()) seen.init.path = "/nowhere";
    load_initial_weights(seen, *tokenizer, model, &team);
    for (const auto& p : model.parameters().all()) {
      ranks[static_cast<size_t>(team.rank())].push_back(to_doubles(p->master));
      ranks[static_cast<size_t>(team.rank())].push_back(to_doubles(p->variable.value()));
    }
  });
  CHECK(ranks[1] == ranks[0]);
  CHECK(ranks[2] == ranks[0]);
}

TEST_CASE("weights that do not fit are refused before training, all of them at once") {
  const Folder folder;
  const Recipe trunk = recipe_in(folder, "trunk", kSoftmax);
  train_alone(trunk, false);
  const std::string path = "init.path=" + (folder / "trunk").string();
  const auto refused = [&](const std::string& mixer, const std::vector<std::string>& sets) {
    const Recipe recipe = recipe_in(folder, "bad", mixer, sets);
    const std::string error = error_of<Error>([&] { train_alone(recipe, false); });
    CHECK(!has_checkpoints(recipe.checkpoint_folder()));
    return error;
  };
  const std::string pruned = refused(kSelfPruned, {path, "model.intermediate_size=32"});
  CHECK(contains(pruned, "do not fit the model"));
  CHECK(contains(pruned, "model.layers.0.self_attn.utility.up.weight: expected f32[16, 16], got none"));
  CHECK(contains(pruned, "model.layers.1.self_attn.utility.down.bias"));
  CHECK(contains(pruned, "name it in init.fresh"));
  CHECK(contains(pruned, "model.layers.1.mlp.down_proj.weight: expected f32[16, 32], got F32[16, 24]"));
  CHECK(contains(refused(kSoftmax, {path, "model.num_layers=1"}),
                 "model.layers.1.mlp.up_proj.weight: expected none, as the model has no such parameter"));
  CHECK(contains(refused(kSoftmax, {path, "init.fresh=[\"*.utilty.*\"]"}),
                 "init.fresh.0: '*.utilty.*' matches no parameter"));
  CHECK(contains(refused(kSoftmax, {"init.path=" + (folder / "none").string()}), "does not exist"));
  CHECK(contains(refused(kSoftmax, {"init.path=" + folder.path().string()}), "is none of them"));
}

TEST_CASE("a checkpoint of another mixer is refused by tensor when it is resumed or loaded") {
  const Folder folder;
  const auto run = [&](const std::string& name, const std::string& mixer) {
    const Recipe recipe = recipe_in(folder, name, mixer);
    train_alone(recipe, false);
    return recipe;
  };
  const std::string parallax = "{kind: parallax}", gated = "{kind: parallax, probe_gate: true}";
  const std::string wide = "{kind: sp_kv, window: 4, utility_hidden: 20}";
  struct Case {
    std::string of, as, expected;
  };
  int number = 0;
  for (const Case& c : std::vector<Case>{
           {kSoftmax, kSelfPruned, "self_attn.utility.up.weight: expected f32[16, 16], got none"},
           {kSoftmax, parallax, "self_attn.r_proj.weight: expected f32[16, 16], got none"},
           {parallax, gated, "self_attn.r_gate.weight: expected"},
           {parallax, kSoftmax, "self_attn.r_proj.weight: expected none"},
           {kSelfPruned, kSoftmax, "self_attn.utility.down.bias: expected none"},
           {wide, kSelfPruned, "self_attn.utility.up.bias: expected f32[16], got"}}) {
    CAPTURE(c.of);
    CAPTURE(c.as);
    const std::string name = fmt::format("run{}", number++);
    run(name, c.of);
    const Recipe other = recipe_in(folder, name, c.as);
    const std::string resumed = error_of<IoError>([&] { train_alone(other, true); });
    CHECK_MESSAGE(contains(resumed, c.expected), resumed);
    CHECK(contains(resumed, "init.path"));
    // The same weights beside a recipe that does not describe them, as hands may put them together.
    const fs::path found = *latest_checkpoint(other.checkpoint_folder());
    const fs::path mixed = write_checkpoint(folder / (name + "_mixed"), 1, [&](const fs::path& into) {
      for (const char* file : {"model.safetensors", "tokenizer.json"})
        fs::copy_file(found / file, into / file);
      write_file_atomically(into / "recipe.yaml", dump_recipe(other));
    });
    const std::string loaded = error_of<IoError>([&] { load_model(mixed); });
    CHECK_MESSAGE(contains(loaded, c.expected), loaded);
    CHECK(contains(loaded, "The recipe.yaml beside the weights describes another model"));
  }
}

}  // namespace
