// A pre-norm decoder-only transformer whose token mixers are chosen per layer.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "config/model_config.h"
#include "mixers/mixer.h"
#include "nn/layers.h"
#include "ops/linear_cross_entropy.h"

namespace lh {

/// What the names of the parameters of a layer's mixer begin with.
std::string mixer_prefix(int64_t layer);

/// x + s mixer(norm(x)), then x + s mlp(norm(x)); s = scale_depth / sqrt(layers) or 1.
class Block {
 public:
  Block(const ModelConfig& model, int64_t layer, ParameterStore& store,
        std::shared_ptr<const RopeTable> rope);
  Variable forward(const Variable& x, const SequenceLayout& layout) const;
  Variable forward_cached(const Variable& x, const SequenceLayout& rows, MixerCache& cache) const;
  const TokenMixer& mixer() const { return *mixer_; }

 private:
  Variable feed_forward(const Variable& x) const;

  RmsNorm input_norm_, post_norm_;
  std::unique_ptr<TokenMixer> mixer_;
  SwigluMlp mlp_;
  double residual_scale_;
};

/// What generation keeps of one sequence: one cache per layer.
struct DecoderCache {
  std::vector<std::unique_ptr<MixerCache>> layers;
  int64_t length = 0;      // tokens seen
  int64_t max_tokens = 0;  // and the most there may be
  int64_t bytes() const;
  KeptKeys kept_keys() const;  // of self-pruning layers
};

class Decoder {
 public:
  /// compute: f32, bf16 or f64 (parameter.h). Parameters are drawn from the seed. config.vocab_size
  /// must be set.
  Decoder(const ModelConfig& config, DType compute, uint64_t seed, Device device = kCpuDevice);

  /// tokens [N] i32 -> final normed hidden states [N, D]. recompute keeps only block inputs.
  Variable forward(const Tensor& tokens, const SequenceLayout& layout, bool recompute = false) const;

  /// Cross-entropy of the next tokens; targets [N] i32, -1 where there is none.
  LinearCrossEntropy loss(const Tensor& tokens, const Tensor& targets, const SequenceLayout& layout,
                          bool recompute = false) const;

  /// Logits [N, vocab] of hidden states, in the compute dtype. For few rows: nothing is chunked.
  Tensor logits(const Variable& hidden) const;

  DecoderCache make_cache(int64_t max_tokens) const;
  /// Feeds tokens [n] after those in the cache and returns logits [vocab] (f32 or f64) for the next.
  Tensor next_logits(const Tensor& tokens, DecoderCache& cache) const;

  /// TokenMixer::describe() of all layers: what an evaluation's report begins with.
  void describe(MixerReport& report) const;

  /// Arithmetic of a forward and its backward (multiply-adds counted twice), head included, embeddings not. Where
  /// something in a block or before it is learned, gradients by inputs cost its products once more and its mixing
  /// twice; the gradient of a learned weight costs its product once more.
  double training_flops(const SequenceLayout& layout) const;

  /// Whether a training step can be recorded (TokenMixer::is_recordable()).
  bool is_recordable() const;

  Device device() const { return store_.device(); }
  ParameterStore& parameters() { return store_; }
  const ParameterStore& parameters() const { return store_; }
  const ModelConfig& config() const { return config_; }

 private:
  const Parameter& head() const { return head_ == nullptr ? *embedding_ : *head_; }

  ModelConfig config_;
  ParameterStore store_;
  Parameter* embedding_;
  std::vector<Block> blocks_;
  std::vector<int64_t> block_ends_;  // in store_.all(), which begins with the embedding
  std::unique_ptr<RmsNorm> norm_;
  Parameter* head_ = nullptr;  // nullptr: tied to the embedding
};

}  // namespace lh
