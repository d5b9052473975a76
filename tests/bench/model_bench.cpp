// Training and decoding of the benchmark decoder, for comparison with scripts/bench_pytorch.py:
// d 512, 8 layers, 8 heads, SwiGLU 1408, vocabulary 8192, tied head (29.9M parameters).
//   bench_model train|decode f32|bf16 [steps] [threads] [block]
// train: forward, backward, clipping and AdamW over 8 sequences of 1024 tokens, always the same
// batch; "block" recomputes activations. decode: batch 1, greedy, 128 tokens after a prompt of 128.
// One process is one setting, so that its peak memory is its own. Prints one line of JSON; speeds
// are of the median step.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/philox.h"
#include "base/timer.h"
#include "config/recipe.h"
#include "models/decoder.h"
#include "runtime/brief_waits.h"
#include "runtime/memory.h"
#include "train/machine_peak.h"
#include "train/run_state.h"
#include "train/step.h"

namespace lh {
namespace {

constexpr int64_t kSequences = 8, kLength = 1024, kVocab = 8192, kPrompt = 128, kGenerate = 128;

ModelConfig benchmark_model(int64_t max_position) {
  ModelConfig model;
  model.vocab_size = kVocab;
  model.hidden_size = 512;
  model.intermediate_size = 1408;
  model.num_layers = 8;
  model.num_heads = 8;
  model.max_position = max_position;
  model.tie_embeddings = true;
  return model;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// The high-water mark of the process's resident memory, from its start or the last reset.
double peak_rss_mib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) / 1024;
  return 0;
}
void reset_peak_rss() {
  std::ofstream("/proc/self/clear_refs") << 5;
}

/// Bytes per second of all threads reading `bytes` again and again: the same amount of memory as
/// decoding reads per token, so that it sits in the same level of cache or memory. The C library's
/// search for a byte that is not there is the reader: it uses the machine's widest loads.
double measure_read_bandwidth(double bytes) {
  constexpr int64_t kPiece = 1 << 18;
  const int64_t pieces = static_cast<int64_t>(bytes) / kPiece;
  const Tensor data = Tensor::empty({pieces, kPiece}, DType::kU8);  // memory as weights have it
  char* const begin = data.raw();
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < pieces; ++i) std::memset(begin + i * kPiece, 1, kPiece);
  double best = 0;
  int64_t found = 0;
  for (int run = 0; run < 30; ++run) {
    const Timer timer;
#pragma omp parallel for reduction(+ : found) schedule(static)
    for (int64_t i = 0; i < pieces; ++i)
      found += std::memchr(begin + i * kPiece, 2, kPiece) != nullptr ? 1 : 0;
    best = std::max(best, static_cast<double>(pieces * kPiece) / timer.seconds());
  }
  LH_CHECK(found == 0, "[bench] memory changed under the benchmark");
  return best;
}

std::vector<int32_t> random_tokens(int64_t count) {
  Philox random(1);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<int32_t>(random.uniform() * static_cast<double>(kVocab)));
  return tokens;
}

void train(DType dtype, int steps, bool recompute) {
  const double peak = measure_matmul_peak(dtype, kCpuDevice);
  Recipe recipe;
  recipe.optim.learning_rate = 3e-4;
  recipe.precision.recompute = recompute ? "block" : "none";
  Decoder model(benchmark_model(kLength), dtype, 1);
  const auto optimizer = make_optimizer(recipe.optim, model.parameters());
  const std::vector<int32_t> drawn = random_tokens(kSequences * (kLength + 1));
  Batch batch;
  for (int64_t s = 0; s < kSequences; ++s) {
    const auto first = drawn.begin() + s * (kLength + 1);
    batch.tokens.insert(batch.tokens.end(), first, first + kLength);
    batch.targets.insert(batch.targets.end(), first + 1, first + kLength + 1);
    batch.segment_offsets.push_back(s * kLength);
  }
  batch.segment_offsets.push_back(kSequences * kLength);
  const StepContext context{.model = model,
                            .optimizer = *optimizer,
                            .recipe = recipe,
                            .batch = [&](int64_t) { return batch; },
                            .micro_batches = 1,
                            .valid_targets = kSequences * kLength,
                            .stop = {}};
  std::vector<double> seconds, losses;
  double flops = 0;
  constexpr int kWarmup = 2;
  for (int step = 0; step < kWarmup + steps; ++step) {
    if (step == kWarmup) reset_peak_rss();
    const Timer timer;
    const StepResult result = train_step(context, 1);
    if (step >= kWarmup) seconds.push_back(timer.seconds());
    losses.push_back(result.loss);
    flops = result.flops;
  }
  const double step_seconds = median(seconds);
  fmt::print("{{\"mode\": \"train\", \"dtype\": \"{}\", \"recompute\": \"{}\", \"tokens_per_s\": "
             "{:.0f}, \"step_s\": {:.4f}, \"gflop_per_s\": {:.1f}, \"matmul_peak_gflop_per_s\": "
             "{:.1f}, \"share_of_peak\": {:.3f}, \"steady_peak_rss_mib\": {:.0f}, "
             "\"tensor_peak_mib\": {:.0f}, \"first_loss\": {:.4f}, \"last_loss\": {:.4f}}}\n",
             dtype_name(dtype), recipe.precision.recompute,
             static_cast<double>(kSequences * kLength) / step_seconds, step_seconds,
             flops / step_seconds * 1e-9, peak * 1e-9, flops / step_seconds / peak, peak_rss_mib(),
             static_cast<double>(memory_report().total_peak) / (1 << 20), losses.front(),
             losses.back());
}

void decode(DType dtype, int steps) {
  Decoder model(benchmark_model(kPrompt + kGenerate), dtype, 1);
  const Tensor prompt = Tensor::from(random_tokens(kPrompt), {kPrompt});
  const auto best = [](const Tensor& logits) {
    const auto values = logits.span<float>();
    return static_cast<int32_t>(std::max_element(values.begin(), values.end()) - values.begin());
  };
  std::vector<double> seconds;
  int64_t cache_bytes = 0;
  for (int run = 0; run < 1 + steps; ++run) {
    DecoderCache cache = model.make_cache(kPrompt + kGenerate);
    cache_bytes = cache.bytes();
    int32_t token = best(model.next_logits(prompt, cache));
    for (int64_t i = 0; i + 1 < kGenerate; ++i) {
      const Timer timer;
      token = best(model.next_logits(Tensor::from(std::vector<int32_t>{token}, {1}), cache));
      if (run > 0) seconds.push_back(timer.seconds());
    }
  }
  const double token_seconds = median(seconds);
  const double weights =
      static_cast<double>(model.parameters().count()) * static_cast<double>(dtype_size(dtype));
  const double mean_filled = (kPrompt + 1.0 + kPrompt + kGenerate) / 2 / (kPrompt + kGenerate);
  const double bytes = weights + static_cast<double>(cache_bytes) * mean_filled;
  const double bandwidth = measure_read_bandwidth(bytes);
  fmt::print("{{\"mode\": \"decode\", \"dtype\": \"{}\", \"tokens_per_s\": {:.1f}, \"gb_per_s\": "
             "{:.2f}, \"read_bandwidth_gb_per_s\": {:.2f}, \"share_of_bandwidth\": {:.3f}}}\n",
             dtype_name(dtype), 1 / token_seconds, bytes / token_seconds * 1e-9, bandwidth * 1e-9,
             bytes / token_seconds / bandwidth);
}

int run(const std::vector<std::string>& arguments) {
  const auto argument = [&](size_t i, const char* otherwise) {
    return i < arguments.size() ? arguments[i] : std::string(otherwise);
  };
  const std::string mode = argument(0, ""), dtype = argument(1, "f32");
  if ((mode != "train" && mode != "decode") || (dtype != "f32" && dtype != "bf16")) {
    fmt::print(stderr, "usage: bench_model train|decode f32|bf16 [steps] [threads] [block]\n");
    return 2;
  }
  const DType type = dtype == "bf16" ? DType::kBF16 : DType::kF32;
  const int steps = std::atoi(argument(2, mode == "train" ? "10" : "5").c_str());
  use_threads(std::atoi(argument(3, "0").c_str()));
  if (mode == "train") train(type, std::max(1, steps), argument(4, "") == "block");
  else decode(type, std::max(1, steps));
  return 0;
}

}  // namespace
}  // namespace lh

int main(int argc, char** argv) {
  lh::start_again_with_brief_waits(argv);
  try {
    return lh::run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
