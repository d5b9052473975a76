// Shape of a decoder: everything that decides its parameters and its function, nothing about
// training. Expresses Llama 2/3, Mistral, SmolLM2, Qwen2/2.5/3 and MiniCPM4.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "config/field.h"

namespace lh {

/// Stretches rotary positions past the length a model was trained on. Names and formulas follow
/// the `rope_scaling` entry of Hugging Face configs.
struct RopeScaling {
  std::string type = "none";  // none | linear | llama3 | yarn | longrope
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  double beta_fast = 32;
  double beta_slow = 1;
  double attention_factor = 0;  // 0: derived from factor
  int64_t original_max_position = 0;
  std::vector<double> short_factor;  // [head_dim / 2]
  std::vector<double> long_factor;   // [head_dim / 2]

  bool operator==(const RopeScaling&) const = default;

  template <typename Visitor, typename Self>
  static void visit(Visitor& v, Self& self) {
    v.field("type", self.type, Doc{"how rotary frequencies are stretched"},
            one_of({"none", "linear", "llama3", "yarn", "longrope"}));
    v.field("factor", self.factor, Doc{"how many times longer than original_max_position"},
            at_least(1));
    v.field("low_freq_factor", self.low_freq_factor,
            Doc{"llama3: wavelengths above original_max_position / this are divided by factor"},
            positive());
    v.field("high_freq_factor", self.high_freq_factor,
            Doc{"llama3: wavelengths below original_max_position / this are left alone"},
            positive());
    v.field("beta_fast", self.beta_fast,
            Doc{"yarn: frequencies with more turns than this are left alone", "turns"}, positive());
    v.field("beta_slow", self.beta_slow,
            Doc{"yarn: frequencies with fewer turns than this are divided by factor", "turns"},
            positive());
    v.field("attention_factor", self.attention_factor,
            Doc{"yarn, longrope: multiplies the rotated queries and keys; 0: derived from factor"},
            at_least(0));
    v.field("original_max_position", self.original_max_position,
            Doc{"llama3, yarn, longrope: length the frequencies were trained for; 0: max_position",
                "tokens"},
            at_least(0));
    v.field(
        "short_factor", self.short_factor,
        Doc{"longrope: divisor per frequency up to original_max_position (head_dim / 2 numbers)"},
        positive());
    v.field("long_factor", self.long_factor,
            Doc{"longrope: divisor per frequency beyond it (head_dim / 2 numbers)"}, positive());
  }
};

/// One kind of token mixer with its settings; model.schedule says which layers use it.
struct MixerConfig {
  std::string kind = "softmax";  // one of mixer_kinds()
  int64_t window = 0;            // keys a query sees, counting its own token; 0: all
  int64_t sinks = 0;             // leading tokens of a document that stay visible
  bool rope = true;              // false: no position encoding (NoPE)
  bool output_gate = false;
  std::string context = "auto";  // auto | gather | heads
  bool probe_rope = true;
  bool probe_gate = false;
  bool zero_probe = false;
  bool uniform_weights = false;
  double ridge = 10;  // the authors' default
  bool frozen_ridge = false;
  double threshold = 0.5;      // sp_kv: utility from which a key is kept beyond the window
  int64_t utility_hidden = 0;  // sp_kv: 0: hidden_size / 4, at least 16
  std::vector<int64_t> global_kv_heads = {};  // sp_kv: not empty: these keep every key, the others none
  double utility_clip = 0;
  bool weighted = false;

  int64_t resolved_utility_hidden(int64_t hidden_size) const;
  /// Whether a query never sees a key outside its window.
  bool is_local() const { return window > 0 && sinks == 0 && kind != "sp_kv"; }
  bool has_learned_gates() const { return kind == "sp_kv" && global_kv_heads.empty(); }

  bool operator==(const MixerConfig&) const = default;

  template <typename Visitor, typename Self>
  static void visit(Visitor& v, Self& self);
};

/// The mixers a recipe may name. A new mixer adds its row here and in mixers/mixer.cpp.
inline std::vector<std::string> mixer_kinds() {
  return {"softmax", "sliding_window", "sp_kv", "parallax", "lla"};
}

struct ModelConfig {
  int64_t vocab_size = 0;  // 0: the tokenizer's
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;  // 0: num_heads
  int64_t head_dim = 0;      // 0: hidden_size / num_heads
  int64_t max_position = 2048;
  double rms_norm_eps = 1e-5;
  double rope_theta = 10000;
  RopeScaling rope_scaling;
  bool qk_norm = false;
  bool qkv_bias = false;
  bool output_bias = false;
  bool mlp_bias = false;
  bool tie_embeddings = true;
  double scale_emb = 1;
  double scale_depth = 0;     // 0: off; else residual branches times scale_depth / sqrt(num_layers)
  double dim_model_base = 0;  // 0: off; else logits times dim_model_base / hidden_size
  double init_std = 0.02;
  std::map<std::string, MixerConfig> mixers = {{"attn", {}}};
  std::vector<std::string> schedule = {"attn"};  // repeated to num_layers

  bool operator==(const ModelConfig&) const = default;

  /// The mixer of layer 0 <= layer < num_layers; ConfigError if the schedule does not name one.
  const MixerConfig& mixer_of_layer(int64_t layer) const;
  /// Whether some layer's mixer has.
  bool has_learned_gates() const;
  /// The key of that mixer in `mixers`.
  const std::string& mixer_name_of_layer(int64_t layer) const;
  int64_t resolved_head_dim() const;      // channels per head
  int64_t resolved_num_kv_heads() const;  // key/value heads
  double residual_scale() const;          // what a block's two branches are multiplied by
  double logit_scale() const;             // what the logits are multiplied by
  /// Trainable parameters, a tied head counted once. `vocab` replaces a vocab_size of 0.
  int64_t num_parameters(int64_t vocab = 0) const;

  template <typename Visitor, typename Self>
  static void visit(Visitor& v, Self& self);
};

template <typename Visitor, typename Self>
void MixerConfig::visit(Visitor& v, Self& self) {
  v.field("kind", self.kind, Doc{"which token mixer"}, one_of(mixer_kinds()));
  v.field("window", self.window,
          Doc{"sliding_window, parallax, lla: keys a query sees, counting its own token; 0: all; "
              "sp_kv: keys a query sees whatever their gates say",
              "tokens"},
          at_least(0));
  v.field("sinks", self.sinks,
          Doc{"with a window: leading tokens of the document that stay visible", "tokens"},
          at_least(0));
  v.field("rope", self.rope, Doc{"rotate queries and keys by position; false: NoPE"}, Rule{});
  v.field("output_gate", self.output_gate,
          Doc{"multiply the heads' outputs by a learned sigmoid gate of the layer's input"},
          Rule{});
  v.field("context", self.context,
          Doc{"how processes that share a sequence (parallel.context) work together. gather: keys and "
              "values come to the queries that see them; heads: each process takes some heads of all "
              "tokens (Ulysses); auto: whichever moves less"},
          one_of({"auto", "gather", "heads"}));
  v.field("probe_rope", self.probe_rope,
          Doc{"parallax: rotate the probe by position like the query, where rope is on"}, Rule{});
  v.field("probe_gate", self.probe_gate,
          Doc{"parallax: multiply the probe by a learned sigmoid gate of the layer's input, to see "
              "whether training keeps it open"},
          Rule{});
  v.field("zero_probe", self.zero_probe,
          Doc{"parallax: begin as softmax attention, with a probe of zeros that learns: its norm's "
              "gain is 0, or its weights where model.qk_norm is off"},
          Rule{});
  v.field("uniform_weights", self.uniform_weights,
          Doc{"parallax: no queries, all visible keys weigh the same (affine linear attention)"},
          Rule{});
  v.field("ridge", self.ridge,
          Doc{"lla: added to the covariance of the keys before it is inverted"}, positive());
  v.field("frozen_ridge", self.frozen_ridge,
          Doc{"lla: leave the ridge's dependence on the weights out of the gradient, as the "
              "authors' code does"},
          Rule{});
  v.field("threshold", self.threshold,
          Doc{"sp_kv: predicted utility from which a key is kept beyond the window"},
          {.low = 0, .high = 1, .low_open = true, .high_open = true});
  v.field("utility_hidden", self.utility_hidden,
          Doc{"sp_kv: inner width of the utility predictor; 0: hidden_size / 4, at least 16",
              "channels"},
          at_least(0));
  v.field("global_kv_heads", self.global_kv_heads,
          Doc{"sp_kv: instead of a predictor: these key/value heads keep all keys, the others those of "
              "the window; empty: gates are learned (longhand recipe hybrid chooses heads)"},
          at_least(0));
  v.field("utility_clip", self.utility_clip,
          Doc{"sp_kv: utilities stay between this and 1 - this, where they have no gradient; 0: free"},
          {.low = 0, .high = 0.5, .high_open = true});
  v.field("weighted", self.weighted,
          Doc{"sp_kv: a key that is kept counts as much as its utility, in generation too, which then "
              "stores all keys (TASG); false: fully"},
          Rule{});
}

template <typename Visitor, typename Self>
void ModelConfig::visit(Visitor& v, Self& self) {
  v.field("vocab_size", self.vocab_size,
          Doc{"rows of the embedding table; 0: as many as the tokenizer has", "tokens"},
          at_least(0));
  v.field("hidden_size", self.hidden_size, Doc{"width of the residual stream", "channels"},
          positive());
  v.field("intermediate_size", self.intermediate_size,
          Doc{"inner width of the SwiGLU feed-forward layer", "channels"}, positive());
  v.field("num_layers", self.num_layers, Doc{"decoder blocks", "layers"}, between(1, 10000));
  v.field("num_heads", self.num_heads, Doc{"query heads", "heads"}, positive());
  v.field("num_kv_heads", self.num_kv_heads,
          Doc{"key/value heads, a divisor of num_heads; 0: num_heads", "heads"}, at_least(0));
  v.field("head_dim", self.head_dim,
          Doc{"channels of one head; 0: hidden_size / num_heads", "channels"}, at_least(0));
  v.field("max_position", self.max_position,
          Doc{"longest document the model is meant for", "tokens"}, positive());
  v.field("rms_norm_eps", self.rms_norm_eps, Doc{"added to the mean square in every RMSNorm"},
          positive());
  v.field("rope_theta", self.rope_theta, Doc{"base of the rotary wavelengths"}, positive());
  v.field("rope_scaling", self.rope_scaling, Doc{"stretching of rotary positions"}, Rule{});
  v.field("qk_norm", self.qk_norm, Doc{"RMSNorm on each head's query and key (Qwen3)"}, Rule{});
  v.field("qkv_bias", self.qkv_bias, Doc{"bias on the q, k and v projections (Qwen2)"}, Rule{});
  v.field("output_bias", self.output_bias, Doc{"bias on the mixer's output projection"}, Rule{});
  v.field("mlp_bias", self.mlp_bias, Doc{"bias on the three feed-forward projections"}, Rule{});
  v.field("tie_embeddings", self.tie_embeddings,
          Doc{"the output head is the embedding table transposed"}, Rule{});
  v.field("scale_emb", self.scale_emb, Doc{"embeddings are multiplied by this (MiniCPM)"},
          positive());
  v.field("scale_depth", self.scale_depth,
          Doc{"residual branches are multiplied by scale_depth / sqrt(num_layers); 0: by 1"},
          at_least(0));
  v.field("dim_model_base", self.dim_model_base,
          Doc{"logits are multiplied by dim_model_base / hidden_size; 0: by 1", "channels"},
          at_least(0));
  v.field("init_std", self.init_std, Doc{"standard deviation of freshly drawn weights"},
          positive());
  v.field("mixers", self.mixers, Doc{"named token mixers, for use in schedule"}, not_empty());
  v.field("schedule", self.schedule,
          Doc{"mixer name per layer, repeated until num_layers, which it must divide"},
          not_empty());
}

}  // namespace lh
