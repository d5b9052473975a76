#include "config/model_config.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace lh {

int64_t MixerConfig::resolved_utility_hidden(int64_t hidden_size) const {
  return utility_hidden > 0 ? utility_hidden : std::max<int64_t>(16, hidden_size / 4);
}

const std::string& ModelConfig::mixer_name_of_layer(int64_t layer) const {
  if (schedule.empty()) fail<ConfigError>("model.schedule is empty");
  return schedule[static_cast<size_t>(layer) % schedule.size()];
}

bool ModelConfig::has_learned_gates() const {
  for (int64_t layer = 0; layer < num_layers; ++layer)
    if (mixer_of_layer(layer).has_learned_gates()) return true;
  return false;
}

const MixerConfig& ModelConfig::mixer_of_layer(int64_t layer) const {
  const std::string& name = mixer_name_of_layer(layer);
  const auto found = mixers.find(name);
  if (found == mixers.end())
    fail<ConfigError>("model.schedule names the mixer '{}', which model.mixers does not define",
                      name);
  return found->second;
}

int64_t ModelConfig::resolved_head_dim() const {
  return head_dim > 0 ? head_dim : num_heads > 0 ? hidden_size / num_heads : 0;
}

int64_t ModelConfig::resolved_num_kv_heads() const {
  return num_kv_heads > 0 ? num_kv_heads : num_heads;
}

double ModelConfig::residual_scale() const {
  return scale_depth > 0 ? scale_depth / std::sqrt(static_cast<double>(num_layers)) : 1;
}

double ModelConfig::logit_scale() const {
  return dim_model_base > 0 ? dim_model_base / static_cast<double>(hidden_size) : 1;
}

int64_t ModelConfig::num_parameters(int64_t vocab) const {
  const int64_t rows = vocab_size > 0 ? vocab_size : vocab;
  const int64_t q = num_heads * resolved_head_dim();
  const int64_t kv = resolved_num_kv_heads() * resolved_head_dim();
  int64_t total = rows * hidden_size * (tie_embeddings ? 1 : 2) + hidden_size;
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    total += 2 * hidden_size;                               // norms
    total += hidden_size * (q + 2 * kv) + q * hidden_size;  // projections
    total += 3 * hidden_size * intermediate_size;
    if (qkv_bias) total += q + 2 * kv;
    if (output_bias) total += hidden_size;
    if (mlp_bias) total += 2 * intermediate_size + hidden_size;
    if (qk_norm) total += 2 * resolved_head_dim();
    const MixerConfig& mixer = mixer_of_layer(layer);
    if (mixer.output_gate) total += hidden_size * q;
    if (mixer.has_learned_gates()) {
      const int64_t inner = mixer.resolved_utility_hidden(hidden_size);
      total += (hidden_size + 1) * inner + (inner + 1) * resolved_num_kv_heads();
    }
    if (mixer.kind != "parallax") continue;
    // The probe has what the query has; without queries it is instead of them.
    const int64_t query = hidden_size * q + (qkv_bias ? q : 0) + (qk_norm ? resolved_head_dim() : 0);
    if (!mixer.uniform_weights) total += query;
    if (mixer.probe_gate) total += hidden_size * q;
  }
  return total;
}

}  // namespace lh
