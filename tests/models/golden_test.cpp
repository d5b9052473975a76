// The decoder against Hugging Face transformers in fp64 (tests/golden/models/README.md): logits,
// loss, every parameter's gradient, and greedy decoding through the cache.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>

#include "autograd/engine.h"
#include "checkpoint/hf_config.h"
#include "checkpoint/safetensors.h"
#include "models/decoder.h"
#include "ops/elementwise.h"
#include "support/compare.h"

namespace {

using namespace lh;
using namespace lh::test;
namespace fs = std::filesystem;

const fs::path kGoldens = fs::path(LH_SOURCE_DIR) / "tests/golden/models";

std::unique_ptr<Decoder> load(const std::string& family, DType compute) {
  auto model =
      std::make_unique<Decoder>(read_hf_config(kGoldens / family / "config.json"), compute, 1);
  const SafetensorsFile weights(kGoldens / family / "model.safetensors");
  size_t loaded = 0;
  for (const auto& parameter : model->parameters().all()) {
    Tensor master = parameter->master;
    assign(master, to_doubles(weights.read(parameter->name)));
    parameter->refresh_compute_copy();
    ++loaded;
  }
  CHECK(loaded == weights.names().size());
  return model;
}

double worst_error(const Tensor& got, const Tensor& expected) {
  const auto a = to_doubles(got), b = to_doubles(expected);
  REQUIRE(a.size() == b.size());
  double worst = 0, scale = 1e-3;
  for (const double value : b) scale = std::max(scale, std::abs(value));
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst / scale;
}

void check_family(const std::string& family, const std::string& file, DType compute,
                  double tolerance, bool recompute = false) {
  CAPTURE(family);
  CAPTURE(file);
  const auto model = load(family, compute);
  const SafetensorsFile expected(kGoldens / family / file);
  std::vector<int64_t> offsets;
  for (const double offset : to_doubles(expected.read("document_offsets")))
    offsets.push_back(static_cast<int64_t>(offset));
  const SequenceLayout layout = SequenceLayout::packed(offsets);
  const Tensor tokens = expected.read("input_ids"), targets = expected.read("targets");
  for (int32_t& target : targets.span<int32_t>())
    if (target == -100) target = -1;  // PyTorch's mark of a token without a target

  CHECK(worst_error(model->logits(model->forward(tokens, layout)), expected.read("logits")) <
        tolerance);
  const LinearCrossEntropy loss = model->loss(tokens, targets, layout, recompute);
  CHECK(worst_error(loss.losses, expected.read("token_loss")) < tolerance);
  const double valid = expected.read("valid_targets").item();
  backward(scale(loss.loss_sum, 1 / valid));
  for (const auto& parameter : model->parameters().all()) {
    CAPTURE(parameter->name);
    CHECK(worst_error(parameter->variable.grad(), expected.read("grad." + parameter->name)) <
          tolerance);
  }
}

const std::vector<std::string> kFamilies = {"llama",       "llama3",    "qwen3",
                                            "qwen2",       "mistral",   "minicpm",
                                            "smollm2",     "rope_linear", "rope_yarn",
                                            "rope_longrope"};

TEST_CASE("logits loss and gradients equal transformers in fp64 for every family") {
  // Stored logits and gradients are rounded to f32, hence 1e-6 and not 1e-12.
  for (const std::string& family : kFamilies)
    check_family(family, "expected.safetensors", DType::kF64, 1e-6);
}

TEST_CASE("logits loss and gradients equal transformers in f32 for every family") {
  for (const std::string& family : kFamilies)
    check_family(family, "expected.safetensors", DType::kF32, 2e-5);
}

TEST_CASE("packed documents give the losses of separate documents") {
  check_family("llama", "expected_packed.safetensors", DType::kF64, 1e-6);
  check_family("mistral", "expected_packed.safetensors", DType::kF64, 1e-6);
}

TEST_CASE("longrope uses its short factors for short sequences") {
  check_family("rope_longrope", "expected_short.safetensors", DType::kF64, 1e-6);
}

TEST_CASE("recomputing blocks changes nothing in the gradients") {
  check_family("qwen3", "expected.safetensors", DType::kF64, 1e-6, true);
}

TEST_CASE("both forms of config.json describe the same model") {
  for (const std::string& family : kFamilies)
    CHECK(read_hf_config(kGoldens / family / "config.json") ==
          read_hf_config(kGoldens / family / "config_v4.json"));
}

TEST_CASE("greedy decoding through the cache gives the tokens of transformers") {
  for (const std::string& family : kFamilies) {
    CAPTURE(family);
    const auto model = load(family, DType::kF64);
    const SafetensorsFile expected(kGoldens / family / "decode.safetensors");
    Tensor input = expected.read("prompt_ids");
    const auto ids = to_doubles(expected.read("greedy_ids"));
    DecoderCache cache = model->make_cache(64);
    for (const double id : ids) {
      const auto logits = to_doubles(model->next_logits(input, cache));
      const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
      CHECK(best == static_cast<int64_t>(id));
      input = Tensor::from(std::vector<int32_t>{static_cast<int32_t>(id)}, {1});
    }
  }
}

TEST_CASE("prefill in any split equals the full forward pass") {
  for (const std::string family : {"mistral", "qwen3"}) {
    const auto model = load(family, DType::kF64);
    const Tensor tokens =
        SafetensorsFile(kGoldens / family / "expected.safetensors").read("input_ids");
    const int64_t n = tokens.size(0);
    const std::vector<int64_t> offsets = {0, n};
    const Tensor full = model->logits(model->forward(tokens, SequenceLayout::packed(offsets)));
    for (const int64_t split : {int64_t{1}, int64_t{5}, n / 2, n - 1}) {
      DecoderCache cache = model->make_cache(n);
      model->next_logits(tokens.slice(0, 0, split), cache);
      const Tensor last = model->next_logits(tokens.slice(0, split, n), cache);
      CHECK(worst_error(last, full.slice(0, n - 1, n)) < 1e-12);
    }
  }
}

}  // namespace
