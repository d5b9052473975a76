#include "train/initial_weights.h"

#include <algorithm>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "checkpoint/checkpoint_folder.h"
#include "checkpoint/hf_config.h"
#include "checkpoint/model_weights.h"
#include "config/load.h"
#include "optim/param_groups.h"

namespace lh {
namespace fs = std::filesystem;
namespace {

bool any_matches(const std::vector<std::string>& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return glob_match(pattern, name); });
}

fs::path weights_folder(const fs::path& path) {
  std::error_code error;
  if (ModelWeights::are_in(path) && !fs::exists(path / "manifest.json", error)) return path;
  if (fs::exists(path / "manifest.json", error) || has_checkpoints(path) ||
      has_checkpoints(path / "checkpoints"))
    return find_checkpoint(path);
  fail<ConfigError>("init.path: expected a run folder, a checkpoint or a Hugging Face folder with "
                    "model.safetensors, {} {}",
                    path.string(),
                    fs::exists(path, error) ? "is none of them" : "does not exist");
}

void check_fresh(const std::vector<std::string>& patterns, const Decoder& model) {
  std::vector<std::string> names;
  for (const auto& parameter : model.parameters().all()) names.push_back(parameter->name);
  for (size_t i = 0; i < patterns.size(); ++i)
    if (std::none_of(names.begin(), names.end(),
                     [&](const std::string& name) { return glob_match(patterns[i], name); }))
      fail<ConfigError>("init.fresh.{}: '{}' matches no parameter{}; names look like '{}'", i,
                        patterns[i], did_you_mean(patterns[i], names), names.back());
}

/// What weights are trained for and their shapes do not say. Other heads are another function of the same
/// tensors by mistake alone; the rest can be meant (a longer context, for one).
void compare_models(const ModelConfig& from, const ModelConfig& to, const fs::path& folder) {
  std::string heads;
  const auto head = [&](const char* key, int64_t theirs, int64_t ours) {
    if (theirs != ours) heads += fmt::format("\n  model.{}: expected {}, got {}", key, theirs, ours);
  };
  head("num_heads", from.num_heads, to.num_heads);
  head("num_kv_heads", from.resolved_num_kv_heads(), to.resolved_num_kv_heads());
  head("head_dim", from.resolved_head_dim(), to.resolved_head_dim());
  if (!heads.empty())
    fail<ConfigError>("init.path: the weights in {} are of other heads:{}", folder.string(), heads);
  const auto setting = [&](const char* key, double theirs, double ours) {
    if (theirs != ours)
      log_warn("[init] model.{} is {}, the weights in {} were trained with {}", key, ours,
               folder.string(), theirs);
  };
  setting("rms_norm_eps", from.rms_norm_eps, to.rms_norm_eps);
  setting("rope_theta", from.rope_theta, to.rope_theta);
  setting("scale_emb", from.scale_emb, to.scale_emb);
  setting("residual scale", from.residual_scale(), to.residual_scale());
  setting("logit scale", from.logit_scale(), to.logit_scale());
  if (!(from.rope_scaling == to.rope_scaling))
    log_warn("[init] model.rope_scaling is not that of the weights in {}", folder.string());
}

bool is_tokenizer(const fs::path& file, const Tokenizer& tokenizer) {
  try {
    return parse_tokenizer(read_file(file), file.string())->digest() == tokenizer.digest();
  } catch (const IoError&) {
    return false;  // of a kind that this project does not read
  }
}

/// Opened and checked by the leader.
ModelWeights open_weights(const Recipe& recipe, const Tokenizer& tokenizer, const Decoder& model) {
  const InitConfig& init = recipe.init;
  const fs::path folder = weights_folder(init.path);
  std::error_code error;
  if (fs::exists(folder / "recipe.yaml", error))
    compare_models(load_recipe(folder / "recipe.yaml").model, model.config(), folder);
  else if (fs::exists(folder / "config.json", error))
    compare_models(read_hf_config(folder / "config.json"), model.config(), folder);
  if (const fs::path theirs = folder / "tokenizer.json";
      fs::exists(theirs, error) && !is_tokenizer(theirs, tokenizer))
    log_warn("[init] the weights in {} were trained with another tokenizer than data.tokenizer: ids "
             "mean other tokens",
             folder.string());
  ModelWeights weights(folder);
  std::vector<StoredTensor> wanted;
  for (const auto& parameter : model.parameters().all())
    wanted.push_back({parameter->name, parameter->master.dtype(), parameter->shape()});
  weights.check(wanted,
                {.not_wanted = [&](const std::string& name) { return any_matches(init.fresh, name); },
                 .not_needed = [&](const std::string& name) { return any_matches(init.ignore, name); },
                 .missing_advice = "; to start with a drawn one, name it in init.fresh",
                 .extra_advice = "; to leave it out, name it in init.ignore"});
  return weights;
}

}  // namespace

void load_initial_weights(const Recipe& recipe, const Tokenizer& tokenizer, Decoder& model,
                          const Team* team) {
  if (recipe.init.path.empty()) return;
  check_fresh(recipe.init.fresh, model);
  const auto& all = model.parameters().all();
  std::optional<ModelWeights> weights;
  if (team == nullptr || team->leads()) weights = open_weights(recipe, tokenizer, model);
  size_t taken = 0;
  for (const auto& parameter : all) {
    if (any_matches(recipe.init.fresh, parameter->name)) continue;
    Tensor value = Tensor::empty(parameter->shape(), parameter->master.dtype());
    if (weights) weights->read({parameter->name, value});
    if (team != nullptr) team->spread(value, "init " + parameter->name);
    parameter->set(value);
    ++taken;
  }
  log_info("[init] {} of {} parameters from {}", taken, all.size(), recipe.init.path);
}

}  // namespace lh
