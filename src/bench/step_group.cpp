// Whole optimizer steps of recipes on random tokens: forward, backward, clipping and update, with
// the recipe's sequence length, micro-batches and recomputation; and the same with SP-KV in every layer.
#include <algorithm>
#include <cmath>

#include "base/philox.h"
#include "bench/gate_density.h"
#include "bench/yardstick.h"
#include "models/decoder.h"
#include "optim/optimizer.h"
#include "runtime/memory.h"
#include "train/gate_schedule.h"
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

/// A model that trains on one batch again and again. It refers to itself: made once, never moved.
class Job {
 public:
  Job(const Setup& setup, const Recipe& own)
      : recipe(own),
        model(recipe.model, setup.dtype, 1, setup.device),
        optimizer(make_optimizer(recipe.optim, model.parameters())),
        batch(random_batch(recipe, recipe.model.vocab_size)) {
    number_rows(batch);
  }
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  int64_t tokens() const { return recipe.accumulation_steps() * batch.valid_targets; }
  void step() {
    const int64_t micro_batches = recipe.accumulation_steps();
    const StepContext context{.model = model,
                              .optimizer = *optimizer,
                              .recipe = recipe,
                              .batch = [this](int64_t) { return batch; },
                              .micro_batches = micro_batches,
                              .valid_targets = tokens(),
                              .stop = {},
                              .gates = gates,
                              .document_tokens = tokens(),
                              .state = &state};
    const StepResult result = train_step(context, learning_rate_factor);
    LH_CHECK(result.non_finite.empty(), "[bench] recipe {}: {} is not finite", recipe.run.name, result.non_finite);
    flops = result.flops;
  }
  Row row(const Setup& setup, const std::string& name) const {
    return {.group = "step", .name = name,
            .shape = fmt::format("{}x{} x{}", recipe.micro_batch_tokens() / recipe.data.seq_tokens,
                                 recipe.data.seq_tokens, recipe.accumulation_steps()),
            .dtype = dtype_name(setup.dtype), .flops = flops, .tokens = static_cast<double>(tokens())};
  }

  Recipe recipe;
  Decoder model;
  std::unique_ptr<Optimizer> optimizer;
  Batch batch;
  GatePhase gates{};
  double learning_rate_factor = 1;
  double flops = 0;  // of the last step
  StepState state;
};

/// The first step, and what it holds at its peak: the optimizer's state already.
double first_step(const Setup& setup, Job& job, int64_t before) {
  reset_memory_peak(setup.device.kind);
  job.step();
  return static_cast<double>(memory_report(setup.device.kind).total_peak - before);
}

/// Steps are long: few of them say enough.
Effort effort_of(const Setup& setup) {
  return {.warmup = 1, .least = 3, .most = 20, .seconds = setup.scale == Scale::kToy ? 0.0 : 10.0};
}

/// In setup.dtype.
void bench_recipe(const Setup& setup, const Recipe& recipe, const Yardstick& peak,
                  Report& report) {
  const int64_t before = memory_report(setup.device.kind).total_now;
  Job job(setup, recipe);
  const double memory = first_step(setup, job, before);
  Row row = job.row(setup, recipe.run.name);
  row.model = sizes_of(recipe);
  row.memory_bytes = memory;
  add_against(peak, [&] { job.step(); }, setup, std::move(row), report, effort_of(setup));
}

/// The recipe with every mixer of a kind, SP-KV with a window that leaves most keys outside.
Recipe with_mixers(const Recipe& recipe, const std::string& kind) {
  Recipe own = recipe;
  for (auto& [name, mixer] : own.model.mixers) {
    mixer = MixerConfig{};
    mixer.kind = kind;
    if (kind == "sp_kv") mixer.window = std::min<int64_t>(128, recipe.data.seq_tokens / 4);
  }
  return own;
}

/// SP-KV with soft gates, and with hard ones of one key in ten, against full attention in the same decoder.
void bench_gates(const Setup& setup, const Recipe& recipe, Report& report) {
  Job dense(setup, with_mixers(recipe, "softmax"));
  dense.step();
  const int64_t without = memory_report(setup.device.kind).total_now;
  Job pruned(setup, with_mixers(recipe, "sp_kv"));
  // With weights that stay, gates keep what they are set to keep.
  dense.learning_rate_factor = pruned.learning_rate_factor = 0;
  const std::string peer = "full attention's step";
  for (const bool hard : {false, true}) {
    pruned.state = {};
    pruned.gates.mode = hard ? GateMode::kHard : GateMode::kSoft;
    std::string name = recipe.run.name + ", sp_kv soft";
    if (hard) {
      constexpr double kDensity = 0.1;
      const double kept = set_gate_density(pruned.model, pruned.batch, kDensity);
      LH_CHECK(std::abs(kept - kDensity) < 0.03, "[bench] expected hard gates that keep {} of the keys, got {}", kDensity,
               kept);
      name = fmt::format("{}, sp_kv hard {:.0f} %", recipe.run.name, 100 * kept);
    }
    const double memory = first_step(setup, pruned, without);
    Row row = pruned.row(setup, name);
    row.memory_bytes = memory;
    if (setup.has_targets()) row.target = {.of = Target::Of::kSpeedAtLeast, .bound = hard ? 0.95 : 0.75};
    add_same_job([&] { dense.step(); }, peer, {{[&] { pruned.step(); }, std::move(row)}}, setup, report,
                 effort_of(setup));
  }
}

}  // namespace

void bench_step(const Setup& setup, Report& report) {
  for (const Recipe& recipe : setup.recipes) {
    Setup own = setup;
    own.dtype = resolve_compute(recipe.precision, setup.device);
    bench_recipe(own, recipe, product_yardstick(own), report);
    bench_gates(own, recipe, report);
  }
}

}  // namespace lh::bench
