#include "checkpoint/model_weights.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/file.h"
#include "base/text.h"

namespace lh {
namespace fs = std::filesystem;
namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kHead = "lm_head.weight";
constexpr const char* kEmbedding = "model.embed_tokens.weight";

std::set<std::string> shards_of(const fs::path& index) {
  const auto json = nlohmann::json::parse(read_file(index), nullptr, false);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object())
    fail<IoError>("{}: expected a JSON object with a weight_map", index.string());
  std::set<std::string> names;
  for (const auto& [tensor, file] : json["weight_map"].items()) {
    if (!file.is_string() || fs::path(file.get<std::string>()).has_parent_path())
      fail<IoError>("{}: weight_map.{}: expected the name of a file beside it", index.string(),
                    tensor);
    names.insert(file.get<std::string>());
  }
  return names;
}

}  // namespace

bool ModelWeights::are_in(const fs::path& folder) {
  std::error_code error;
  return fs::exists(folder / kSingle, error) || fs::exists(folder / kIndex, error);
}

ModelWeights::ModelWeights(const fs::path& folder) : folder_(folder) {
  std::error_code error;
  std::set<std::string> names = {kSingle};
  if (fs::exists(folder / kIndex, error)) names = shards_of(folder / kIndex);
  for (const std::string& name : names) {
    files_.emplace_back(folder / name);
    for (const std::string& tensor : files_.back().names())
      if (!place_.emplace(tensor, files_.size() - 1).second)
        fail<IoError>("{}: the tensor {} is in another shard too", (folder / name).string(), tensor);
  }
}

const SafetensorsFile* ModelWeights::file_of(const std::string& name) const {
  const auto found = place_.find(name);
  if (found != place_.end()) return &files_[found->second];
  return name == kHead && place_.contains(kEmbedding) ? file_of(kEmbedding) : nullptr;
}

bool ModelWeights::repeats_embedding(const std::string& name) const {
  if (name != kHead || !place_.contains(kEmbedding)) return false;
  const Tensor head = file_of(kHead)->read(kHead), table = file_of(kEmbedding)->read(kEmbedding);
  return head.shape() == table.shape() && head.dtype() == table.dtype() &&
         std::memcmp(head.raw(), table.raw(), head.bytes()) == 0;
}

void ModelWeights::check(const std::vector<StoredTensor>& model,
                         const WeightsTolerance& tolerance) const {
  const auto allowed = [](const auto& rule, const std::string& name) { return rule && rule(name); };
  std::vector<std::string> names;
  for (const auto& [name, place] : place_) names.push_back(name);
  std::set<std::string> used;
  std::string problems;
  for (const StoredTensor& target : model) {
    used.insert(target.name);
    if (allowed(tolerance.not_wanted, target.name)) continue;
    const SafetensorsFile* file = file_of(target.name);
    const std::string own = place_.contains(target.name) ? target.name : kEmbedding;
    if (file == nullptr)
      problems += fmt::format("\n  {}: expected {}{}, got none{}{}", target.name,
                              dtype_name(target.dtype), target.shape.str(),
                              did_you_mean(target.name, names), tolerance.missing_advice);
    else if (!(file->shape(own) == target.shape) || !file->is_floating(own))
      problems += fmt::format("\n  {}: expected {}{}, got {}", target.name,
                              dtype_name(target.dtype), target.shape.str(),
                              file->describe(own));
  }
  for (const std::string& name : names)
    if (!used.contains(name) && !allowed(tolerance.not_needed, name) &&
        !name.ends_with(".rotary_emb.inv_freq") && !repeats_embedding(name))
      problems += fmt::format("\n  {}: expected none, as the model has no such parameter, got {}{}",
                              name, file_of(name)->describe(name), tolerance.extra_advice);
  if (!problems.empty())
    fail<IoError>("the weights in {} do not fit the model:{}{}", folder_.string(), problems,
                  tolerance.closing_advice);
}

void ModelWeights::read(const NamedTensor& into) const {
  const SafetensorsFile* file = file_of(into.name);
  LH_CHECK(file != nullptr, "[weights] {} was not checked", into.name);
  file->read_into(place_.contains(into.name) ? into.name : kEmbedding, into.tensor);
}

}  // namespace lh
