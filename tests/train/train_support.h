// A tiny decoder with both mixers, and batches made of given documents.
#pragma once

#include "data/batcher.h"
#include "models/decoder.h"
#include "support/compare.h"
#include "train/batch_tensors.h"

namespace lh::test {

inline ModelConfig tiny_model(int64_t vocab = 40) {
  ModelConfig config;
  config.vocab_size = vocab;
  config.hidden_size = 16;
  config.intermediate_size = 24;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 8;
  config.max_position = 128;
  config.init_std = 0.3;
  config.qk_norm = true;
  config.mixers = {{"local", {.kind = "sliding_window", .window = 6, .sinks = 2}},
                   {"full", {.kind = "softmax", .output_gate = true}}};
  config.schedule = {"local", "full"};
  return config;
}

using Document = std::vector<int32_t>;

inline Document random_document(int64_t tokens, int64_t vocab, uint64_t seed) {
  Philox random(seed);
  Document document;
  for (int64_t i = 0; i < tokens; ++i)
    document.push_back(static_cast<int32_t>(random.below(static_cast<uint32_t>(vocab))));
  return document;
}

/// Inputs are all but the last token of each document, targets all but the first; every fifth
/// target is left out.
inline Batch make_batch(const std::vector<Document>& documents) {
  Batch batch;
  batch.segment_offsets = {0};
  for (const Document& d : documents) {
    for (size_t i = 0; i + 1 < d.size(); ++i) {
      batch.tokens.push_back(d[i]);
      batch.targets.push_back(i % 5 == 4 ? -1 : d[i + 1]);
      batch.positions.push_back(static_cast<int32_t>(i));
      batch.valid_targets += i % 5 == 4 ? 0 : 1;
    }
    batch.segment_offsets.push_back(static_cast<int64_t>(batch.tokens.size()));
  }
  return batch;
}

/// Losses of one document alone from its logits by the textbook formula.
inline std::vector<double> textbook_losses(const Decoder& model, const Document& document) {
  const GradMode off(false);
  const Batch batch = make_batch({document});
  const BatchTensors tensors = BatchTensors::from(batch);
  const std::vector<double> logits =
      to_doubles(model.logits(model.forward(tensors.tokens, tensors.layout)));
  const auto vocab = static_cast<size_t>(model.config().vocab_size);
  std::vector<double> losses;
  for (size_t i = 0; i < batch.targets.size(); ++i) {
    double sum = 0;
    for (size_t v = 0; v < vocab; ++v) sum += std::exp(logits[i * vocab + v]);
    const bool valid = batch.targets[i] >= 0;
    losses.push_back(
        valid ? std::log(sum) - logits[i * vocab + static_cast<size_t>(batch.targets[i])] : 0);
  }
  return losses;
}

}  // namespace lh::test
