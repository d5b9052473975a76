#include "models/decoder.h"

#include <algorithm>
#include <cmath>

#include "autograd/checkpoint.h"
#include "backend/elementwise.h"
#include "ops/elementwise.h"
#include "ops/embedding.h"
#include "ops/linear.h"

namespace lh {
namespace {

std::string layer_prefix(int64_t layer) {
  return fmt::format("model.layers.{}", layer);
}

}  // namespace

std::string mixer_prefix(int64_t layer) {
  return layer_prefix(layer) + ".self_attn";
}

Block::Block(const ModelConfig& model, int64_t layer, ParameterStore& store,
             std::shared_ptr<const RopeTable> rope)
    : input_norm_(store, layer_prefix(layer) + ".input_layernorm", model.hidden_size,
                  model.rms_norm_eps),
      post_norm_(store, layer_prefix(layer) + ".post_attention_layernorm", model.hidden_size,
                 model.rms_norm_eps),
      mixer_(make_mixer(
          {model, model.mixer_of_layer(layer), mixer_prefix(layer), store, std::move(rope)})),
      mlp_(store, layer_prefix(layer) + ".mlp", model.hidden_size, model.intermediate_size,
           model.mlp_bias, model.init_std,
           model.init_std / std::sqrt(2.0 * static_cast<double>(model.num_layers))),
      residual_scale_(model.residual_scale()) {}

Variable Block::feed_forward(const Variable& x) const {
  return add(x, mlp_(post_norm_(x)), 1, residual_scale_);
}

Variable Block::forward(const Variable& x, const SequenceLayout& layout) const {
  return feed_forward(add(x, mixer_->forward(input_norm_(x), layout), 1, residual_scale_));
}

Variable Block::forward_cached(const Variable& x, const SequenceLayout& rows,
                               MixerCache& cache) const {
  return feed_forward(
      add(x, mixer_->forward_cached(input_norm_(x), rows, cache), 1, residual_scale_));
}

int64_t DecoderCache::bytes() const {
  int64_t total = 0;
  for (const auto& layer : layers) total += layer->bytes();
  return total;
}

KeptKeys DecoderCache::kept_keys() const {
  KeptKeys total;
  for (const auto& layer : layers) {
    const KeptKeys part = layer->kept_keys();
    total.kept += part.kept;
    total.all += part.all;
    total.dense_bytes += part.dense_bytes;
    total.bytes += part.bytes;
  }
  return total;
}

Decoder::Decoder(const ModelConfig& config, DType compute, uint64_t seed, Device device)
    : config_(config), store_(compute, seed, device) {
  LH_CHECK(config_.vocab_size > 0, "[decoder] vocab_size must be set");
  embedding_ = &store_.create("model.embed_tokens.weight", {config_.vocab_size, config_.hidden_size},
                              ParameterKind::kEmbedding, Init::normal(config_.init_std));
  const auto rope = std::make_shared<const RopeTable>(
      config_, compute == DType::kF64 ? DType::kF64 : DType::kF32, device);
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    blocks_.emplace_back(config_, layer, store_, rope);
    block_ends_.push_back(std::ssize(store_.all()));
  }
  norm_ = std::make_unique<RmsNorm>(store_, "model.norm", config_.hidden_size,
                                    config_.rms_norm_eps);
  if (!config_.tie_embeddings)
    head_ = &store_.create("lm_head.weight", {config_.vocab_size, config_.hidden_size},
                           ParameterKind::kHead, Init::normal(config_.init_std));
}

Variable Decoder::forward(const Tensor& tokens, const SequenceLayout& layout,
                          bool recompute) const {
  Variable x = embedding(embedding_->variable, tokens, config_.scale_emb);
  for (const Block& block : blocks_) {
    if (!recompute) {
      x = block.forward(x, layout);
      continue;
    }
    x = checkpoint(
        [&block, layout](std::span<const Variable> inputs) {
          return block.forward(inputs[0], layout);
        },
        {x});
  }
  return (*norm_)(x);
}

LinearCrossEntropy Decoder::loss(const Tensor& tokens, const Tensor& targets,
                                 const SequenceLayout& layout, bool recompute) const {
  return linear_cross_entropy(forward(tokens, layout, recompute), head().variable, targets,
                              config_.logit_scale());
}

Tensor Decoder::logits(const Variable& hidden) const {
  const GradMode off(false);
  return scale(linear(hidden, head().variable), config_.logit_scale()).value();
}

DecoderCache Decoder::make_cache(int64_t max_tokens) const {
  DecoderCache cache;
  cache.max_tokens = max_tokens;
  for (const Block& block : blocks_) cache.layers.push_back(block.mixer().make_cache(max_tokens));
  return cache;
}

Tensor Decoder::next_logits(const Tensor& tokens, DecoderCache& cache) const {
  const int64_t count = tokens.size(0);
  LH_CHECK(count > 0, "[next_logits] needs at least one token");
  if (cache.length + count > cache.max_tokens)
    fail("the cache was made for {} tokens; {} are asked for", cache.max_tokens,
         cache.length + count);
  const GradMode off(false);
  const SequenceLayout rows = SequenceLayout::run(cache.length, count, store_.device());
  Variable x = embedding(embedding_->variable, tokens, config_.scale_emb);
  for (size_t layer = 0; layer < blocks_.size(); ++layer)
    x = blocks_[layer].forward_cached(x, rows, *cache.layers[layer]);
  cache.length += count;
  const Variable last(x.value().slice(0, count - 1, count));
  const Tensor row = logits((*norm_)(last));
  Tensor wide = Tensor::empty({config_.vocab_size},
                              row.dtype() == DType::kF64 ? DType::kF64 : DType::kF32, row.device());
  LH_DISPATCH(row.device(), "next_logits", copy(row.reshape({-1}), wide));
  return wide;
}

bool Decoder::is_recordable() const {
  return std::all_of(blocks_.begin(), blocks_.end(),
                     [](const Block& block) { return block.mixer().is_recordable(); });
}

void Decoder::describe(MixerReport& report) const {
  for (const Block& block : blocks_) block.mixer().describe(report);
}

double Decoder::training_flops(const SequenceLayout& layout) const {
  double total = 0;
  bool reached = embedding_->variable.requires_grad();  // backward comes this far
  const auto add_product = [&](const Parameter& weight) {
    const int passes = 1 + (weight.variable.requires_grad() ? 1 : 0) + (reached ? 1 : 0);
    total += 2.0 * passes * static_cast<double>(weight.numel()) * static_cast<double>(layout.rows());
  };
  const auto learned = [](const auto& parameter) { return parameter->variable.requires_grad(); };
  auto begin = store_.all().begin() + 1;
  for (size_t block = 0; block < blocks_.size(); ++block) {
    const auto end = store_.all().begin() + block_ends_[block];
    reached = reached || std::any_of(begin, end, learned);
    for (; begin != end; ++begin)
      if ((*begin)->kind == ParameterKind::kMatrix) add_product(**begin);
    total += (reached ? 3 : 1) * blocks_[block].mixer().flops(layout).useful;
  }
  reached = reached || learned(*begin);  // the last norm
  add_product(head());
  return total;
}

}  // namespace lh
