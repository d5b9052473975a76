#include "checkpoint/hf_config.h"

#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"

namespace lh {
namespace {

using Json = nlohmann::json;

/// Typed access to one JSON object; errors name the file and the key.
class Keys {
 public:
  Keys(const Json& json, std::string where) : json_(json), where_(std::move(where)) {}

  template <typename T>
  T get(const char* key) const {
    if (!has(key)) fail<IoError>("{}: the key '{}' is missing", where_, key);
    return convert<T>(key);
  }
  template <typename T>
  T get(const char* key, T otherwise) const {
    return has(key) ? convert<T>(key) : otherwise;
  }
  /// Present and not null, which Hugging Face writes for "not set".
  bool has(const char* key) const { return json_.contains(key) && !json_[key].is_null(); }
  const Json& raw(const char* key) const { return json_[key]; }
  const std::string& where() const { return where_; }

 private:
  template <typename T>
  T convert(const char* key) const {
    try {
      return json_[key].get<T>();
    } catch (const Json::exception&) {
      fail<IoError>("{}: the key '{}' has an unexpected value: {}", where_, key,
                    json_[key].dump().substr(0, 80));
    }
  }
  const Json& json_;
  std::string where_;
};

RopeScaling read_rope(const Keys& rope, int64_t max_position) {
  RopeScaling scaling;
  const std::string type =
      rope.get<std::string>("rope_type", rope.get<std::string>("type", "default"));
  if (type == "default") return scaling;
  if (type != "linear" && type != "llama3" && type != "yarn" && type != "longrope")
    fail<IoError>("{}: rope type '{}' is not supported (linear, llama3, yarn and longrope are)",
                  rope.where(), type);
  scaling.type = type;
  scaling.factor = rope.get<double>("factor", 1);
  scaling.low_freq_factor = rope.get<double>("low_freq_factor", 1);
  scaling.high_freq_factor = rope.get<double>("high_freq_factor", 4);
  scaling.beta_fast = rope.get<double>("beta_fast", 32);
  scaling.beta_slow = rope.get<double>("beta_slow", 1);
  scaling.attention_factor = rope.get<double>("attention_factor", 0);
  scaling.original_max_position =
      rope.get<int64_t>("original_max_position_embeddings", max_position);
  scaling.short_factor = rope.get<std::vector<double>>("short_factor", {});
  scaling.long_factor = rope.get<std::vector<double>>("long_factor", {});
  return scaling;
}

}  // namespace

ModelConfig read_hf_config(const std::filesystem::path& path) {
  const Json json = Json::parse(read_file(path), nullptr, false);
  if (!json.is_object()) fail<IoError>("{}: expected a JSON object", path.string());
  const Keys keys(json, path.string());
  const auto type = keys.get<std::string>("model_type");
  const std::vector<std::string> known = {"llama", "mistral", "qwen2", "qwen3", "minicpm"};
  if (std::find(known.begin(), known.end(), type) == known.end())
    fail<IoError>("{}: model_type '{}' is not supported; expected one of {}", path.string(), type,
                  fmt::join(known, ", "));
  const auto activation = keys.get<std::string>("hidden_act", "silu");
  if (activation != "silu")
    fail<IoError>("{}: hidden_act '{}' is not supported; expected silu", path.string(), activation);

  ModelConfig model;
  model.vocab_size = keys.get<int64_t>("vocab_size");
  model.hidden_size = keys.get<int64_t>("hidden_size");
  model.intermediate_size = keys.get<int64_t>("intermediate_size");
  model.num_layers = keys.get<int64_t>("num_hidden_layers");
  model.num_heads = keys.get<int64_t>("num_attention_heads");
  model.num_kv_heads = keys.get<int64_t>("num_key_value_heads", 0);
  model.head_dim = keys.get<int64_t>("head_dim", 0);
  model.max_position = keys.get<int64_t>("max_position_embeddings");
  model.rms_norm_eps = keys.get<double>("rms_norm_eps");
  model.tie_embeddings = keys.get<bool>("tie_word_embeddings", type == "minicpm");
  model.init_std = keys.get<double>("initializer_range", 0.02);
  model.qk_norm = type == "qwen3";
  const bool bias = keys.get<bool>("attention_bias", type == "qwen2");
  model.qkv_bias = bias;
  model.output_bias = bias && type != "qwen2";
  model.mlp_bias = keys.get<bool>("mlp_bias", false);

  model.rope_theta = keys.get<double>("rope_theta", 10000);
  for (const char* name : {"rope_scaling", "rope_parameters"}) {
    if (!keys.has(name)) continue;
    const Keys rope(keys.raw(name), path.string() + ": " + name);
    model.rope_theta = rope.get<double>("rope_theta", model.rope_theta);
    model.rope_scaling = read_rope(rope, model.max_position);
  }
  if (type == "minicpm") {
    model.scale_emb = keys.get<double>("scale_emb", 1);
    model.scale_depth = keys.get<double>("scale_depth", 0);
    model.dim_model_base = keys.get<double>("dim_model_base", 0);
  }
  // Qwen configs carry a sliding_window that use_sliding_window switches off.
  const bool windowed = keys.has("sliding_window") && keys.get<bool>("use_sliding_window", true);
  if (windowed && (type == "mistral" || type == "qwen2" || type == "qwen3"))
    model.mixers["attn"] = {.kind = "sliding_window",
                            .window = keys.get<int64_t>("sliding_window")};
  return model;
}

}  // namespace lh
