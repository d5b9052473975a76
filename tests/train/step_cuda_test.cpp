// Whole training steps on a CUDA device (real or emulated) against the CPU: loss, gradients, and
// parameters after several updates, and a state saved on one and loaded on the other.
#include <doctest/doctest.h>

#include <cstring>
#include <limits>

#include "backend/elementwise.h"
#include "checkpoint/training_state.h"
#include "runtime/gpu.h"
#include "support/folder.h"
#include "train/generate.h"
#include "train/step.h"
#include "train_support.h"

namespace {

using namespace lh;
using namespace lh::test;

constexpr Device kGpu{DeviceKind::kCuda, 0};

bool no_device() {
  if (gpu::device_count() > 0) return false;
  MESSAGE("SKIPPED: no CUDA device (" << gpu::unavailable_reason() << ")");
  return true;
}

ModelConfig model_config() {
  ModelConfig config = tiny_model();
  config.head_dim = 16;  // a step of the tensor cores
  config.hidden_size = 32;
  config.tie_embeddings = false;
  return config;
}

struct Trained {
  std::unique_ptr<Decoder> model;
  std::unique_ptr<Optimizer> optimizer;
  std::vector<double> losses, norms;
};

Trained train(Device device, DType dtype, const std::string& optimizer, int64_t steps,
              const std::string& recompute = "none", const ModelConfig& config = model_config(),
              const GatePhase& gates = {}) {
  Recipe recipe;
  recipe.precision.recompute = recompute;
  recipe.optim.kind = optimizer;
  recipe.optim.learning_rate = 0.01;
  recipe.optim.clip_norm = 0.5;
  if (gates.mode == GateMode::kSample) recipe.schedule.gates.kind = "bernoulli";
  Trained run;
  run.model = std::make_unique<Decoder>(config, dtype, 3, device);
  run.optimizer = make_optimizer(recipe.optim, run.model->parameters());
  for (int64_t step = 0; step < steps; ++step) {
    const auto seed = static_cast<uint64_t>(10 * step);
    const std::vector<std::vector<Document>> micro = {
        {random_document(9, 40, seed + 1), random_document(23, 40, seed + 2)},
        {random_document(4, 40, seed + 3), random_document(14, 40, seed + 4)}};
    int64_t valid = 0;
    for (const auto& documents : micro) valid += make_batch(documents).valid_targets;
    const StepResult result = train_step(
        {.model = *run.model,
         .optimizer = *run.optimizer,
         .recipe = recipe,
         .batch = [&](int64_t i) { return make_batch(micro[static_cast<size_t>(i)]); },
         .micro_batches = 2,
         .valid_targets = valid,
         .stop = {},
         .gates = gates},
        1);
    run.losses.push_back(result.loss);
    run.norms.push_back(result.grad_norm);
  }
  return run;
}

/// Largest difference of the parameters, relative to the largest update of any of them.
double parameter_difference(const Trained& a, const Trained& b, DType dtype) {
  const Decoder start(a.model->config(), dtype, 3);
  double worst = 0, moved = 0;
  for (size_t p = 0; p < start.parameters().all().size(); ++p) {
    const auto x = to_doubles(a.model->parameters().all()[p]->master.to(kCpuDevice));
    const auto y = to_doubles(b.model->parameters().all()[p]->master.to(kCpuDevice));
    const auto z = to_doubles(start.parameters().all()[p]->master);
    for (size_t i = 0; i < x.size(); ++i) {
      worst = std::max(worst, std::abs(x[i] - y[i]));
      moved = std::max(moved, std::abs(y[i] - z[i]));
    }
  }
  return worst / moved;
}

/// Logits through the caches: of a prompt, a piece that follows it, single tokens.
void check_decoding(const Decoder& cpu, const Decoder& gpu) {
  DecoderCache on_cpu = cpu.make_cache(30), on_gpu = gpu.make_cache(30);
  const Document tokens = random_document(30, 40, 7);
  for (int64_t i = 0, count = 20; i < 30; i += count, count = i == 20 ? 4 : 1) {
    const Document next(tokens.begin() + i, tokens.begin() + i + count);
    const Tensor input = Tensor::from(next, {static_cast<int64_t>(next.size())});
    const auto want = to_doubles(cpu.next_logits(input, on_cpu));
    const auto got = to_doubles(gpu.next_logits(input.to(kGpu), on_gpu).to(kCpuDevice));
    for (size_t v = 0; v < want.size(); ++v) CHECK(std::abs(got[v] - want[v]) < 1e-2);
  }
  CHECK(on_gpu.bytes() == on_cpu.bytes());
}

TEST_CASE("cuda training steps equal the CPU's in f32 with both optimizers") {
  if (no_device()) return;
  for (const std::string optimizer : {"adamw", "muon"}) {
    CAPTURE(optimizer);
    const Trained cpu = train(kCpuDevice, DType::kF32, optimizer, 3);
    const Trained gpu = train(kGpu, DType::kF32, optimizer, 3);
    for (size_t i = 0; i < 3; ++i) {
      CHECK(gpu.losses[i] == doctest::Approx(cpu.losses[i]).epsilon(1e-5));
      CHECK(gpu.norms[i] == doctest::Approx(cpu.norms[i]).epsilon(1e-4));
    }
    // Adam divides by the root of tiny second moments, which magnifies rounding.
    CHECK(parameter_difference(gpu, cpu, DType::kF32) < 0.01);
  }
}

TEST_CASE("cuda steps and decoding of self-pruning layers equal the CPU's in every phase") {
  if (no_device()) return;
  ModelConfig config = model_config();
  config.mixers = {{"self", {.kind = "sp_kv", .window = 5}}};
  config.schedule = {"self"};
  for (const GateMode mode : {GateMode::kSoft, GateMode::kAnneal, GateMode::kHard}) {
    GatePhase phase;
    phase.mode = mode;
    phase.alpha = 0.5;
    const Trained cpu = train(kCpuDevice, DType::kF32, "adamw", 2, "none", config, phase);
    const Trained gpu = train(kGpu, DType::kF32, "adamw", 2, "none", config, phase);
    for (size_t i = 0; i < 2; ++i) {
      CHECK(gpu.losses[i] == doctest::Approx(cpu.losses[i]).epsilon(1e-5));
      CHECK(gpu.norms[i] == doctest::Approx(cpu.norms[i]).epsilon(1e-4));
    }
    CHECK(parameter_difference(gpu, cpu, DType::kF32) < 0.01);
    if (mode != GateMode::kSoft) continue;
    check_decoding(*cpu.model, *gpu.model);
  }
}

TEST_CASE("cuda steps with drawn gates, and steps and decoding with weighted ones, equal the CPU's") {
  if (no_device()) return;
  ModelConfig config = model_config();
  config.mixers = {{"self", {.kind = "sp_kv", .window = 5, .utility_clip = 0.001}}};
  config.schedule = {"self"};
  for (const GateMode mode : {GateMode::kSample, GateMode::kHard}) {
    config.mixers.at("self").weighted = mode == GateMode::kHard;
    GatePhase phase;
    phase.mode = mode;
    phase.draw_seed = 4;
    const Trained cpu = train(kCpuDevice, DType::kF32, "adamw", 2, "none", config, phase);
    const Trained gpu = train(kGpu, DType::kF32, "adamw", 2, "none", config, phase);
    for (size_t i = 0; i < 2; ++i) {
      CHECK(gpu.losses[i] == doctest::Approx(cpu.losses[i]).epsilon(1e-5));
      CHECK(gpu.norms[i] == doctest::Approx(cpu.norms[i]).epsilon(1e-4));
    }
    CHECK(parameter_difference(gpu, cpu, DType::kF32) < 0.01);
    if (mode == GateMode::kHard) check_decoding(*cpu.model, *gpu.model);
  }
}

ModelConfig parallax_config() {
  ModelConfig config = model_config();
  config.mixers = {{"wide", {.kind = "parallax", .output_gate = true}},
                   {"local", {.kind = "parallax", .window = 6, .sinks = 2}}};
  config.schedule = {"wide", "local"};
  return config;
}

TEST_CASE("cuda steps and decoding of parallax layers equal the CPU's") {
  if (no_device()) return;
  const ModelConfig config = parallax_config();
  const Trained cpu = train(kCpuDevice, DType::kF32, "muon", 2, "none", config);
  const Trained gpu = train(kGpu, DType::kF32, "muon", 2, "none", config);
  for (size_t i = 0; i < 2; ++i) {
    CHECK(gpu.losses[i] == doctest::Approx(cpu.losses[i]).epsilon(1e-5));
    CHECK(gpu.norms[i] == doctest::Approx(cpu.norms[i]).epsilon(1e-4));
  }
  CHECK(parameter_difference(gpu, cpu, DType::kF32) < 0.01);
  check_decoding(*cpu.model, *gpu.model);
}

TEST_CASE("cuda training of parallax layers in bf16 is as near to f32 as the CPU's, and repeatable") {
  if (no_device()) return;
  const ModelConfig config = parallax_config();
  const Trained exact = train(kCpuDevice, DType::kF32, "adamw", 1, "none", config);
  const Trained cpu = train(kCpuDevice, DType::kBF16, "adamw", 1, "none", config);
  const Trained gpu = train(kGpu, DType::kBF16, "adamw", 1, "none", config);
  const Trained again = train(kGpu, DType::kBF16, "adamw", 1, "block", config);
  CHECK(std::abs(gpu.losses[0] - exact.losses[0]) <
        2 * std::abs(cpu.losses[0] - exact.losses[0]) + 0.01);
  CHECK(std::abs(gpu.norms[0] - exact.norms[0]) <
        2 * std::abs(cpu.norms[0] - exact.norms[0]) + 0.02 * exact.norms[0]);
  for (size_t p = 0; p < gpu.model->parameters().all().size(); ++p)
    CHECK(bitwise_equal(gpu.model->parameters().all()[p]->master.to(kCpuDevice),
                        again.model->parameters().all()[p]->master.to(kCpuDevice)));
}

TEST_CASE("cuda training in bf16 is as near to f32 as the CPU's") {
  if (no_device()) return;
  const Trained exact = train(kCpuDevice, DType::kF32, "adamw", 1);
  const Trained cpu = train(kCpuDevice, DType::kBF16, "adamw", 1);
  const Trained gpu = train(kGpu, DType::kBF16, "adamw", 1);
  CHECK(std::abs(gpu.losses[0] - exact.losses[0]) <
        2 * std::abs(cpu.losses[0] - exact.losses[0]) + 0.01);
  CHECK(std::abs(gpu.norms[0] - exact.norms[0]) <
        2 * std::abs(cpu.norms[0] - exact.norms[0]) + 0.02 * exact.norms[0]);
}

TEST_CASE("cuda steps are bitwise repeatable, with recomputation too") {
  if (no_device()) return;
  const Trained a = train(kGpu, DType::kBF16, "muon", 2), b = train(kGpu, DType::kBF16, "muon", 2);
  const Trained c = train(kGpu, DType::kBF16, "muon", 2, "block");
  for (size_t p = 0; p < a.model->parameters().all().size(); ++p) {
    const Tensor x = a.model->parameters().all()[p]->master.to(kCpuDevice);
    CHECK(bitwise_equal(x, b.model->parameters().all()[p]->master.to(kCpuDevice)));
    CHECK(bitwise_equal(x, c.model->parameters().all()[p]->master.to(kCpuDevice)));
  }
}

TEST_CASE("a cuda step waits for the device once, whatever it is made of") {
  if (no_device()) return;
  for (const std::string optimizer : {"adamw", "muon"})
    for (const std::string recompute : {"none", "block"}) {
      const int64_t before = gpu::wait_count(kGpu);
      const Trained run = train(kGpu, DType::kBF16, optimizer, 3, recompute);
      CHECK(gpu::wait_count(kGpu) - before == 3);
    }
}

TEST_CASE("a bad gradient or loss on the device leaves parameters, moments and counts") {
  if (no_device()) return;
  for (const std::string optimizer_kind : {"adamw", "muon"})
    for (const std::string bad : {"loss", "gradient"}) {
      Recipe recipe;
      recipe.optim.kind = optimizer_kind;
      Decoder model(model_config(), DType::kF32, 3, kGpu);
      const auto optimizer = make_optimizer(recipe.optim, model.parameters());
      const auto all = [&] {
        std::vector<Tensor> tensors;
        for (const auto& p : model.parameters().all())
          tensors.push_back(p->master.to(kCpuDevice));
        for (const NamedTensor& named : optimizer->state())
          tensors.push_back(named.tensor.to(kCpuDevice));
        return tensors;
      };
      StepContext context{.model = model,
                          .optimizer = *optimizer,
                          .recipe = recipe,
                          .batch = [&](int64_t) { return make_batch({random_document(9, 40, 1)}); },
                          .micro_batches = 1,
                          .valid_targets = 7,
                          .stop = {}};
      CHECK(train_step(context, 1).non_finite == "");
      Parameter& norm = *model.parameters().find("model.norm.weight");
      Tensor values = norm.master.to(kCpuDevice);
      if (bad == "loss") values.data<float>()[3] = std::numeric_limits<float>::quiet_NaN();
      norm.master.copy_bytes_from(values);
      if (bad != "loss") context.valid_targets = 0;  // gradients are multiplied by 1 / 0
      const auto before = all();
      const StepResult result = train_step(context, 1);
      CHECK(result.non_finite != "");
      CHECK(optimizer->steps() == 1);
      const auto after = all();
      for (size_t i = 0; i < before.size(); ++i)
        CHECK(std::memcmp(before[i].raw(), after[i].raw(), before[i].bytes()) == 0);
    }
}

TEST_CASE("batches sent ahead are the batches of the next step") {
  if (no_device()) return;
  for (const Device device : {kCpuDevice, kGpu}) {
    const auto run = [&](bool ahead) {
      Recipe recipe;
      Decoder model(model_config(), DType::kF32, 3, device);
      const auto optimizer = make_optimizer(recipe.optim, model.parameters());
      StepState state;
      uint64_t made = 0;
      std::vector<double> losses;
      const auto batch = [&] { return make_batch({random_document(12, 40, ++made)}); };
      for (int step = 0; step < 3; ++step)
        losses.push_back(train_step({.model = model,
                                     .optimizer = *optimizer,
                                     .recipe = recipe,
                                     .batch = [&](int64_t) { return batch(); },
                                     .micro_batches = 2,
                                     .valid_targets = 18,
                                     .stop = {},
                                     .next = [&]() -> std::optional<Batch> {
                                       if (!ahead || step == 1) return std::nullopt;
                                       return batch();
                                     },
                                     .state = &state},
                                    1)
                             .loss);
      return losses;
    };
    CHECK(run(true) == run(false));
  }
}

struct GraphRun {
  std::vector<double> losses, norms;
  std::vector<Tensor> parameters;
  int64_t launches = 0, waits = 0;
};

/// Steps of two micro-batches whose documents differ from step to step; step 4 has many more of
/// them. Between two steps, the model is evaluated.
GraphRun run_with_graphs(const std::string& graphs, DType dtype, const std::string& optimizer_kind,
                         const std::string& recompute, int steps = 9,
                         const ModelConfig& config = model_config()) {
  Recipe recipe;
  recipe.precision.cuda_graphs = graphs;
  recipe.precision.recompute = recompute;
  recipe.optim.kind = optimizer_kind;
  recipe.optim.learning_rate = 0.01;
  recipe.optim.clip_norm = 0.5;
  Decoder model(config, dtype, 3, kGpu);
  const auto optimizer = make_optimizer(recipe.optim, model.parameters());
  StepState state;
  GraphRun run;
  constexpr int64_t kRows = 40;
  int64_t made = 0;
  const auto batch = [&] {
    const int64_t step = made / 2, micro = made % 2;
    ++made;
    std::vector<Document> documents;
    int64_t left = kRows;
    const int64_t most = step == 4 ? 2 : 9 + 7 * ((step + micro) % 3);
    for (uint64_t i = 0; left > 0; ++i) {
      const int64_t length = std::min(left, most);
      documents.push_back(
          random_document(length + 1, 40, 100 * static_cast<uint64_t>(made) + i));
      left -= length;
    }
    return make_batch(documents);
  };
  for (int step = 0; step < steps; ++step) {
    const int64_t waited = gpu::wait_count(kGpu);
    const StepResult result =
        train_step({.model = model,
                    .optimizer = *optimizer,
                    .recipe = recipe,
                    .batch = [&](int64_t) { return batch(); },
                    .micro_batches = 2,
                    .valid_targets = 64,
                    .stop = {},
                    .next = [&]() -> std::optional<Batch> {
                      if (step % 2 == 0) return std::nullopt;
                      return batch();
                    },
                    .state = &state},
                   0.5 + 0.1 * step);
    run.waits = std::max(run.waits, gpu::wait_count(kGpu) - waited);
    CHECK(result.non_finite == "");
    run.losses.push_back(result.loss);
    run.norms.push_back(result.grad_norm);
    const GradMode off(false);
    const BatchTensors other =
        BatchTensors::from(make_batch({random_document(31, 40, 7)}), kGpu);
    run.losses.push_back(model.loss(other.tokens, other.targets, other.layout).loss_sum.value().item());
  }
  for (const auto& p : model.parameters().all())
    run.parameters.push_back(p->master.to(kCpuDevice));
  for (const NamedTensor& named : optimizer->state())
    run.parameters.push_back(named.tensor.to(kCpuDevice));
  if (state.recorded != nullptr) run.launches = state.recorded->launches();
  return run;
}

void check_recording(DType dtype, const char* optimizer, const char* recompute,
                     const ModelConfig& config) {
  CAPTURE(optimizer);
  const auto run = [&](const char* graphs) {
    return run_with_graphs(graphs, dtype, optimizer, recompute, 9, config);
  };
  const GraphRun one = run("off"), two = run("auto");
  CHECK(one.launches == 0);
  CHECK(two.launches >= 5);  // all but the first, and the one whose documents need more room
  CHECK(one.waits == 1);
  CHECK(two.waits == 1);
  CHECK(one.losses == two.losses);
  CHECK(one.norms == two.norms);
  for (size_t i = 0; i < one.parameters.size(); ++i)
    CHECK(bitwise_equal(one.parameters[i], two.parameters[i]));
}

TEST_CASE("recorded steps equal launched ones bitwise, whatever the documents") {
  if (no_device()) return;
  check_recording(DType::kF32, "adamw", "none", model_config());
  check_recording(DType::kBF16, "adamw", "block", model_config());
  check_recording(DType::kBF16, "muon", "none", model_config());
}

TEST_CASE("recorded steps of Parallax equal launched ones bitwise, whatever the documents") {
  if (no_device()) return;
  check_recording(DType::kBF16, "muon", "none", parallax_config());
}

TEST_CASE("a recording refuses the host and is not launched into memory that is in use") {
  if (no_device()) return;
  const Tensor source = Tensor::from(std::vector<float>{1, 2, 3}, {3}).to(kGpu);
  Tensor target = Tensor::zeros({3}, DType::kF32, kGpu);
  const auto record = [&] {
    gpu::Capture capture(kGpu);
    {
      Tensor between = Tensor::empty({3}, DType::kF32, kGpu);
      cuda::copy(source, between);
      cuda::copy(between, target);
    }
    CHECK_THROWS_WITH_AS(source.to(kCpuDevice), doctest::Contains("cannot be recorded"), Error);
    CHECK_THROWS_WITH_AS(gpu::synchronize(kGpu), doctest::Contains("cannot be recorded"), Error);
    return capture.finish();
  };
  const auto graph = record();
  CHECK(to_doubles(target.to(kCpuDevice)) == std::vector<double>{0, 0, 0});
  CHECK(graph->launch());
  CHECK(to_doubles(target.to(kCpuDevice)) == std::vector<double>{1, 2, 3});
  {
    const Tensor squatter = Tensor::zeros({3}, DType::kF32, kGpu);
    CHECK(!graph->launch());
  }
  CHECK(graph->launch());
  {
    const gpu::Capture forgotten(kGpu);
    cuda::copy(target, target);
  }
  CHECK(to_doubles(target.to(kCpuDevice)) == std::vector<double>{1, 2, 3});
}

TEST_CASE("a state saved on a device loads on the CPU and back") {
  if (no_device()) return;
  const Folder folder;
  const Trained trained = train(kGpu, DType::kF32, "adamw", 1);
  std::vector<NamedTensor> saved;
  for (const auto& p : trained.model->parameters().all()) saved.push_back({p->name, p->master});
  const auto file = folder.path() / "state.h5";
  write_training_state(file, {{"step", "1"}}, saved);
  for (const Device device : {kCpuDevice, kGpu}) {
    Decoder other(model_config(), DType::kF32, 99, device);
    std::vector<NamedTensor> targets;
    for (const auto& p : other.parameters().all()) targets.push_back({p->name, p->master});
    TrainingStateFile(file).restore(targets);
    for (size_t i = 0; i < saved.size(); ++i)
      CHECK(bitwise_equal(targets[i].tensor.to(kCpuDevice), saved[i].tensor.to(kCpuDevice)));
  }
}

TEST_CASE("greedy generation through the caches is the same on a device") {
  if (no_device()) return;
  const Decoder on_cpu(model_config(), DType::kF32, 3), on_gpu(model_config(), DType::kF32, 3, kGpu);
  DecoderCache cpu_cache = on_cpu.make_cache(40), gpu_cache = on_gpu.make_cache(40);
  Tensor input = Tensor::from(random_document(11, 40, 5), {11});
  for (int i = 0; i < 20; ++i) {
    const Tensor a = on_cpu.next_logits(input, cpu_cache);
    const Tensor b = on_gpu.next_logits(input.to(kGpu), gpu_cache).to(kCpuDevice);
    LH_CHECK_CLOSE(b, a, 1e-4, 1e-4);
    const auto values = to_doubles(a);
    input = Tensor::from(std::vector<int32_t>{static_cast<int32_t>(
                             std::max_element(values.begin(), values.end()) - values.begin())},
                         {1});
  }
}

}  // namespace
