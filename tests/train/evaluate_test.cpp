#include "train/evaluate.h"

#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include "data/data_support.h"
#include "train_support.h"

namespace {

using namespace lh;
using namespace lh::test;

/// Documents of 10, 37 and 5 tokens; every token counts up, the last of each is the end of text.
std::shared_ptr<const TokenShard> shard(const Folder& folder) {
  return counting_shard(folder / "v.h5", {10, 37, 5}, 0, 60);
}

TEST_CASE("loss bits per byte and loss by position equal those of each document alone") {
  const Folder folder;
  const Decoder model(tiny_model(60), DType::kF64, 2);
  // A stream of f64 losses needs the batches' own rows; recompute them by the textbook.
  const EvaluationBatches batches({shard(folder)}, 64);
  double total = 0;
  std::map<int, std::pair<double, int64_t>> by_bucket;
  int64_t targets = 0;
  for (int64_t s = 0; s < batches.sequences(); ++s) {
    const Batch batch = batches.make_batch(s, 1);
    for (size_t d = 0; d + 1 < batch.segment_offsets.size(); ++d) {
      const GradMode off(false);
      const int64_t begin = batch.segment_offsets[d], end = batch.segment_offsets[d + 1];
      const Document inputs(batch.tokens.begin() + begin, batch.tokens.begin() + end);
      const auto logits = to_doubles(model.logits(
          model.forward(Tensor::from(inputs, {end - begin}),
                        SequenceLayout::packed(std::vector<int64_t>{0, end - begin}))));
      for (int64_t i = 0; i < end - begin; ++i) {
        const int32_t target = batch.targets[static_cast<size_t>(begin + i)];
        double sum = 0;
        for (int64_t v = 0; v < 60; ++v) sum += std::exp(logits[static_cast<size_t>(i * 60 + v)]);
        const double loss = std::log(sum) - logits[static_cast<size_t>(i * 60 + target)];
        total += loss;
        ++targets;
        auto& bucket = by_bucket[static_cast<int>(std::log2(static_cast<double>(i + 1)))];
        bucket.first += loss;
        ++bucket.second;
      }
    }
  }
  const Decoder single(tiny_model(60), DType::kF32, 2);
  for (const int64_t at_once : {1, 2, 8}) {
    const EvalResult result = evaluate(single, batches, at_once);
    CHECK(!result.stopped);
    CHECK(result.targets == targets);
    CHECK(result.targets == 52);
    CHECK(result.text_bytes == 1 + 4 + 7);
    CHECK(result.loss == doctest::Approx(total / static_cast<double>(targets)).epsilon(1e-6));
    CHECK(result.perplexity() == doctest::Approx(std::exp(result.loss)));
    CHECK(result.bits_per_byte == doctest::Approx(total / std::log(2.0) / 12).epsilon(1e-6));
    REQUIRE(result.by_position.size() == by_bucket.size());
    for (const auto& bucket : result.by_position) {
      const auto& want =
          by_bucket.at(static_cast<int>(std::log2(static_cast<double>(bucket.begin))));
      CHECK(bucket.end == 2 * bucket.begin);
      CHECK(bucket.targets == want.second);
      CHECK(bucket.loss ==
            doctest::Approx(want.first / static_cast<double>(want.second)).epsilon(1e-5));
    }
  }
}

TEST_CASE("evaluation counts the keys that gates keep, at any threshold") {
  const Folder folder;
  ModelConfig config = tiny_model(60);
  config.mixers["self"] = {.kind = "sp_kv", .window = 4};
  config.schedule = {"full", "self"};
  const Decoder model(config, DType::kF32, 2);
  const EvaluationBatches batches({shard(folder)}, 64);
  // Documents of 10, 37 and 5 tokens have 6, 33 and 1 keys beyond the window, for two kv heads.
  const EvalResult hard = evaluate(model, batches, 1);
  const MixerFigure& density = hard.mixers.figure("kv_density");
  CHECK(density.total().weight == 2 * (6 + 33 + 1));
  CHECK(density.mixers.contains("model.layers.1.self_attn"));
  CHECK(density.mixers.size() == 1);
  GatePhase strict;
  strict.threshold = 1 - 1e-6;
  const EvalResult closed = evaluate(model, batches, 1, {}, {}, nullptr, strict);
  CHECK(closed.mixers.figure("kv_density").total().sum < density.total().sum);
  CHECK(closed.loss != hard.loss);
  GatePhase soft;
  soft.mode = GateMode::kSoft;
  const EvalResult weighed = evaluate(model, batches, 1, {}, {}, nullptr, soft);
  CHECK(weighed.mixers.figure("kv_density").total().sum == density.total().sum);
  CHECK(weighed.loss != hard.loss);

  // The caches of documents hold their last 4 keys (all tokens: 52) and what is kept of the others.
  const ReportedMean cache = closed.mixers.figure("cache_fraction").total();
  CHECK(cache.weight == 2 * 52);
  CHECK(cache.sum == 2 * 3 * 4 + closed.mixers.figure("kv_density").total().sum);
  const ValidData data{.text = EvaluationBatches({shard(folder)}, 64), .tasks = {}};
  const EvalResult both = evaluate(model, data, 1);
  CHECK(both.loss == hard.loss);
  REQUIRE(both.soft_loss.has_value());
  CHECK(*both.soft_loss == weighed.loss);
  CHECK(!evaluate(model, data, 1, {}, {}, nullptr, strict).soft_loss.has_value());
}

TEST_CASE("a stop before the first batch is no error and later ones keep what was seen") {
  const Folder folder;
  const Decoder model(tiny_model(60), DType::kF32, 2);
  const EvaluationBatches batches({shard(folder)}, 16);
  REQUIRE(batches.sequences() > 2);
  const EvalResult none = evaluate(model, batches, 1, [] { return true; });
  CHECK(none.stopped);
  CHECK(none.targets == 0);
  CHECK(none.loss == 0);
  int asked = 0;
  const EvalResult some = evaluate(model, batches, 1, [&] { return ++asked > 2; });
  CHECK(some.stopped);
  CHECK(some.targets > 0);
  CHECK(some.targets < 52);
  CHECK(std::isfinite(some.loss));
}

}  // namespace
