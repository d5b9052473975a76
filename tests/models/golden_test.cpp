// The decoder against Hugging Face transformers in fp64 (tests/golden/models/README.md): logits,
// loss, every parameter's gradient, and greedy decoding through the cache.
#include "models/golden.h"

namespace {

using namespace lh;
using namespace lh::test;

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
