// The weights of a model on disk, as a checkpoint of this project or a Hugging Face folder holds them:
// one model.safetensors, or the shards that model.safetensors.index.json lists.
#pragma once

#include <functional>
#include <map>

#include "checkpoint/safetensors.h"

namespace lh {

/// What of a model and of weights on disk may differ, and what to tell who sees other differences.
struct WeightsTolerance {
  /// Names of the model that are not looked for, and of the folder that need not be the model's; null:
  /// none.
  std::function<bool(const std::string&)> not_wanted = nullptr, not_needed = nullptr;
  std::string missing_advice = {}, extra_advice = {}, closing_advice = {};
};

class ModelWeights {
 public:
  /// IoError when a file is missing or damaged, or when two shards hold the same tensor.
  explicit ModelWeights(const std::filesystem::path& folder);

  /// Whether a folder looks like one of weights.
  static bool are_in(const std::filesystem::path& folder);

  /// IoError that lists everything wrong at once, by tensor: without a counterpart here, of another
  /// shape or not of floats, or here without one in the model. Allowed: a head that a model with tied
  /// embeddings leaves out, or holds again; tables of rotary frequencies.
  void check(const std::vector<StoredTensor>& model, const WeightsTolerance& tolerance = {}) const;
  void check(const std::vector<NamedTensor>& model, const WeightsTolerance& tolerance = {}) const {
    check(stored(model), tolerance);
  }

  /// Fills a tensor that was checked, in any floating dtype and on any device.
  void read(const NamedTensor& into) const;

 private:
  /// Where a tensor of the model comes from; nullptr: nowhere.
  const SafetensorsFile* file_of(const std::string& name) const;
  bool repeats_embedding(const std::string& name) const;

  std::filesystem::path folder_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, size_t> place_;  // of a tensor, in files_
};

}  // namespace lh
