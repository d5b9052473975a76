// The decoder on a CUDA device (real or emulated) against the same golden values as on the CPU.
#include "models/golden.h"
#include "runtime/gpu.h"

namespace {

using namespace lh;
using namespace lh::test;

constexpr Device kGpu{DeviceKind::kCuda, 0};

TEST_CASE("logits loss and gradients equal transformers in f32 for every family") {
  if (gpu::device_count() == 0) {
    MESSAGE("SKIPPED: no CUDA device (" << gpu::unavailable_reason() << ")");
    return;
  }
  for (const std::string& family : kFamilies)
    check_family(family, "expected.safetensors", DType::kF32, 2e-5, false, kGpu);
  check_family("llama", "expected_packed.safetensors", DType::kF32, 2e-5, true, kGpu);
  check_family("mistral", "expected_packed.safetensors", DType::kF32, 2e-5, false, kGpu);
}

TEST_CASE("greedy decoding gives the tokens of transformers") {
  if (gpu::device_count() == 0) {
    MESSAGE("SKIPPED: no CUDA device (" << gpu::unavailable_reason() << ")");
    return;
  }
  for (const std::string family : {"mistral", "qwen3"}) {
    CAPTURE(family);
    const auto model = load(family, DType::kF32, kGpu);
    const SafetensorsFile expected(kGoldens / family / "decode.safetensors");
    Tensor input = expected.read("prompt_ids");
    DecoderCache cache = model->make_cache(64);
    for (const double id : to_doubles(expected.read("greedy_ids"))) {
      const auto logits = to_doubles(model->next_logits(input.to(kGpu), cache).to(kCpuDevice));
      const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
      CHECK(best == static_cast<int64_t>(id));
      input = Tensor::from(std::vector<int32_t>{static_cast<int32_t>(id)}, {1});
    }
  }
}

}  // namespace
