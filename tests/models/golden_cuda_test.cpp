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

TEST_CASE("logits loss and gradients of each mixer equal its definition in f32") {
  if (gpu::device_count() == 0) {
    MESSAGE("SKIPPED: no CUDA device (" << gpu::unavailable_reason() << ")");
    return;
  }
  for (const std::string& mixer : kMixers) check_mixer(mixer, DType::kF32, 2e-5, false, kGpu);
}

TEST_CASE("mixers report of themselves what they report on the CPU in f64") {
  if (gpu::device_count() == 0) {
    MESSAGE("SKIPPED: no CUDA device (" << gpu::unavailable_reason() << ")");
    return;
  }
  for (const std::string& mixer : kMixers) {
    CAPTURE(mixer);
    const SafetensorsFile expected(kMixerGoldens / mixer / "expected.safetensors");
    const auto report_on = [&](DType compute, Device device) {
      const auto model = load_mixer(mixer, compute, device);
      auto [tokens, layout] = GoldenInput(expected, device);
      MixerReport report;
      model->describe(report);
      layout.set_report(&report);
      const GradMode off(false);
      model->forward(tokens, layout);
      return report;
    };
    MixerReport got = report_on(DType::kF32, kGpu), want = report_on(DType::kF64, kCpuDevice);
    const auto got_sums = got.sums(), want_sums = want.sums();
    REQUIRE(!want_sums.empty());
    REQUIRE(got_sums.size() == want_sums.size());
    // The device computes in f32: a rounding of 6e-8 in each op on the way to a sum.
    for (size_t i = 0; i < want_sums.size(); ++i)
      CHECK(*got_sums[i] == doctest::Approx(*want_sums[i]).epsilon(1e-5));
  }
}

}  // namespace
