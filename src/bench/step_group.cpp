// Whole optimizer steps of recipes on random tokens: forward, backward, clipping and update, with
// the recipe's sequence length, micro-batches and recomputation.
#include <algorithm>

#include "base/philox.h"
#include "bench/yardstick.h"
#include "models/decoder.h"
#include "optim/optimizer.h"
#include "runtime/memory.h"
#include "train/run_state.h"
#include "train/step.h"

namespace lh::bench {
namespace {

/// Sequences of full length, packed into one micro-batch.
Batch random_batch(const Recipe& recipe, int64_t vocab) {
  const int64_t tokens = recipe.micro_batch_tokens(), length = recipe.data.seq_tokens;
  Batch batch;
  Philox random(1);
  const auto draw = [&] {
    return static_cast<int32_t>(random.below(static_cast<uint64_t>(vocab)));
  };
  for (int64_t begin = 0; begin < tokens; begin += length) {
    batch.segment_offsets.push_back(begin);
    int32_t token = draw();
    for (int64_t i = begin; i < std::min(tokens, begin + length); ++i) {
      batch.tokens.push_back(token);
      token = draw();
      batch.targets.push_back(token);
    }
  }
  batch.segment_offsets.push_back(tokens);
  batch.valid_targets = tokens;
  return batch;
}

/// The decoder's shape as numbers; "plain" is 1 when it is nothing but softmax attention with
/// rotary positions and SwiGLU.
std::map<std::string, int64_t> sizes_of(const Recipe& recipe) {
  const ModelConfig& m = recipe.model;
  bool plain = m.rope_scaling.type == "none" && m.residual_scale() == 1 && m.logit_scale() == 1 &&
               m.scale_emb == 1 && !m.output_bias && !m.mlp_bias;
  for (int64_t layer = 0; layer < m.num_layers; ++layer) {
    const MixerConfig& mixer = m.mixer_of_layer(layer);
    plain = plain && mixer.kind == "softmax" && mixer.rope && !mixer.output_gate;
  }
  return {{"vocab_size", m.vocab_size},
          {"hidden_size", m.hidden_size},
          {"intermediate_size", m.intermediate_size},
          {"num_layers", m.num_layers},
          {"num_heads", m.num_heads},
          {"num_kv_heads", m.resolved_num_kv_heads()},
          {"head_dim", m.resolved_head_dim()},
          {"qk_norm", m.qk_norm},
          {"qkv_bias", m.qkv_bias},
          {"tie_embeddings", m.tie_embeddings},
          {"recompute", recipe.precision.recompute == "block"},
          {"adamw", recipe.optim.kind == "adamw"},
          {"plain", plain}};
}

/// In setup.dtype.
void bench_recipe(const Setup& setup, const Recipe& recipe, const Yardstick& peak,
                  Report& report) {
  reset_memory_peak(setup.device.kind);
  const int64_t before = memory_report(setup.device.kind).total_now;
  Decoder model(recipe.model, setup.dtype, 1, setup.device);
  const auto optimizer = make_optimizer(recipe.optim, model.parameters());
  const Batch batch = random_batch(recipe, recipe.model.vocab_size);
  const int64_t micro_batches = recipe.accumulation_steps();
  const StepContext context{.model = model,
                            .optimizer = *optimizer,
                            .recipe = recipe,
                            .batch = [&](int64_t) { return batch; },
                            .micro_batches = micro_batches,
                            .valid_targets = micro_batches * batch.valid_targets,
                            .stop = {}};
  double flops = 0;
  const auto step = [&] {
    const StepResult result = train_step(context, 1);
    LH_CHECK(result.non_finite.empty(), "[bench] recipe {}: {} is not finite", recipe.run.name,
             result.non_finite);
    flops = result.flops;
  };
  step();
  Row row{.group = "step", .name = recipe.run.name,
          .shape = fmt::format("{}x{} x{}", recipe.micro_batch_tokens() / recipe.data.seq_tokens,
                               recipe.data.seq_tokens, micro_batches),
          .dtype = dtype_name(setup.dtype)};
  row.flops = flops;
  row.model = sizes_of(recipe);
  row.tokens = static_cast<double>(context.valid_targets);
  // The peak of the first step, which holds the optimizer's state already.
  row.memory_bytes =
      static_cast<double>(memory_report(setup.device.kind).total_peak - before);
  // Steps are long: few of them say enough.
  const double seconds = setup.scale == Scale::kToy ? 0 : 10;
  add_against(peak, step, setup, std::move(row), report,
              {.warmup = 1, .least = 3, .most = 20, .seconds = seconds});
}

}  // namespace

void bench_step(const Setup& setup, Report& report) {
  for (const Recipe& recipe : setup.recipes) {
    Setup own = setup;
    own.dtype = resolve_compute(recipe.precision, setup.device);
    bench_recipe(own, recipe, product_yardstick(own), report);
  }
}

}  // namespace lh::bench
