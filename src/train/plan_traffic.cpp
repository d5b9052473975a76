#include "train/plan_traffic.h"

#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "models/decoder.h"

namespace lh {
namespace {

/// A mixer labels what it sends with its prefix and what it is ("k", "v", nothing for heads), gradients with "d "
/// before that (mixers/context_mix.h).
struct MixerLabel {
  int64_t layer = 0;
  bool backward = false;
  std::string what;
};

std::optional<MixerLabel> mixer_label(std::string label, const ModelConfig& model) {
  const bool backward = label.starts_with("d ");
  if (backward) label.erase(0, 2);
  const std::string prefix = label.substr(0, label.find(' '));
  for (int64_t layer = 0; layer < model.num_layers; ++layer) {
    if (prefix != mixer_prefix(layer)) continue;
    return MixerLabel{layer, backward,
                      prefix == label                                 ? "heads"
                      : model.mixer_of_layer(layer).is_local() ? "halo of keys and values"
                                                               : "keys and values"};
  }
  return std::nullopt;
}

}  // namespace

std::vector<PlannedTraffic> planned_traffic(const LabelTraffic& sent, const ModelConfig& model) {
  std::map<std::tuple<std::string, std::string, bool, std::string>, PlannedTraffic> rows;
  std::map<const PlannedTraffic*, std::set<int64_t>> layers;
  for (const auto& [key, bytes] : sent) {
    if (bytes == 0) continue;
    const auto& [collective, label] = key;
    const std::optional<MixerLabel> of_mixer = mixer_label(label, model);
    PlannedTraffic row;
    row.what = label == "gradients" || label == "parameters" ? label : "numbers";
    row.collective = collective;
    if (of_mixer) {
      row.mixer = model.schedule[static_cast<size_t>(of_mixer->layer) % model.schedule.size()];
      row.what = of_mixer->what;
      row.backward = of_mixer->backward;
    }
    PlannedTraffic& sum =
        rows.try_emplace({row.mixer, row.what, row.backward, collective}, row).first->second;
    sum.bytes += bytes;
    if (!of_mixer) continue;
    layers[&sum].insert(of_mixer->layer);
    sum.layers = static_cast<int64_t>(layers[&sum].size());
  }
  std::vector<PlannedTraffic> result;
  for (auto& [key, row] : rows) result.push_back(std::move(row));
  return result;
}

}  // namespace lh
