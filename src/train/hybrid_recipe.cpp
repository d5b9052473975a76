#include "train/hybrid_recipe.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "models/decoder.h"

namespace lh {

Recipe hybrid_recipe(const Recipe& recipe, const MixerFigure& density, int64_t global_heads) {
  const std::vector<RankedHead> ranked = heads_by_density(density);
  const auto total = static_cast<int64_t>(ranked.size());
  if (total == 0) fail<ConfigError>("a hybrid is made from a model with sp_kv layers; this one has none");
  if (global_heads < 0 || global_heads > total)
    fail<ConfigError>("--global-heads: expected 0 to {}, the key/value heads of all sp_kv layers, got {}",
                      total, global_heads);
  std::map<std::string, std::set<int64_t>> open;
  for (int64_t i = 0; i < global_heads; ++i)
    open[ranked[static_cast<size_t>(i)].mixer].insert(ranked[static_cast<size_t>(i)].head);

  Recipe hybrid = recipe;
  ModelConfig& model = hybrid.model;
  model.mixers.clear();
  model.schedule.clear();
  const MixerConfig unset;
  for (int64_t layer = 0; layer < model.num_layers; ++layer) {
    std::string name = recipe.model.mixer_name_of_layer(layer);
    MixerConfig mixer = recipe.model.mixer_of_layer(layer);
    if (mixer.has_learned_gates()) {
      const std::set<int64_t>& heads = open[mixer_prefix(layer)];
      mixer.threshold = unset.threshold;
      mixer.utility_hidden = unset.utility_hidden;
      mixer.utility_clip = unset.utility_clip;
      mixer.weighted = unset.weighted;
      if (heads.empty()) {
        mixer.kind = "sliding_window";
        name += "_local";
      } else if (static_cast<int64_t>(heads.size()) == model.resolved_num_kv_heads()) {
        mixer.kind = "softmax";
        mixer.window = 0;
        name += "_global";
      } else {
        mixer.global_kv_heads.assign(heads.begin(), heads.end());
        name += fmt::format("_heads_{}", fmt::join(heads, "_"));
      }
    }
    // The recipe may have a mixer of that name already.
    const auto is_taken = [&](const std::string& by) {
      const auto differs = [&](const std::map<std::string, MixerConfig>& mixers) {
        const auto found = mixers.find(by);
        return found != mixers.end() && found->second != mixer;
      };
      return differs(recipe.model.mixers) || differs(model.mixers);
    };
    while (is_taken(name)) name += "_";
    model.mixers[name] = mixer;
    model.schedule.push_back(name);
  }
  hybrid.schedule.gates = {};
  const auto of_predictor = [](const std::string& pattern) {
    return pattern.find("utility") != std::string::npos;
  };
  // Without its predictor a model that learned nothing else would learn nothing: it learns all.
  const bool predictor_alone = std::any_of(
      hybrid.optim.groups.begin(), hybrid.optim.groups.end(),
      [&](const ParamGroupConfig& group) { return of_predictor(group.pattern) && !group.freeze; });
  std::erase_if(hybrid.optim.groups, [&](const ParamGroupConfig& group) {
    return of_predictor(group.pattern) || (predictor_alone && group.freeze && group.pattern == "*");
  });
  // Weights to start from may hold a predictor, unless they were said to hold none.
  if (!hybrid.init.path.empty() && std::none_of(hybrid.init.fresh.begin(), hybrid.init.fresh.end(), of_predictor))
    hybrid.init.ignore.push_back("*.utility.*");
  std::erase_if(hybrid.init.fresh, of_predictor);
  const std::string suffix = fmt::format("_hybrid_{}", global_heads);
  hybrid.run.name += suffix;
  if (!hybrid.run.out_dir.empty()) hybrid.run.out_dir += suffix;  // the old one holds checkpoints
  return hybrid;
}

}  // namespace lh
