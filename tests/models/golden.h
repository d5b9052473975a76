// Models of the golden folder, and the comparison of a whole model with its golden values.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>

#include "autograd/engine.h"
#include "base/math.h"
#include "checkpoint/hf_config.h"
#include "checkpoint/safetensors.h"
#include "config/load.h"
#include "models/decoder.h"
#include "ops/elementwise.h"
#include "support/compare.h"

namespace lh::test {

namespace fs = std::filesystem;

inline const fs::path kGoldens = fs::path(LH_SOURCE_DIR) / "tests/golden/models";
inline const fs::path kMixerGoldens = fs::path(LH_SOURCE_DIR) / "tests/golden/mixers";
inline const std::vector<std::string> kMixers = {"parallax", "lla", "sp_kv"};

/// A model with the weights of a file, which holds no others.
inline std::unique_ptr<Decoder> load_weights(const ModelConfig& config, const fs::path& file, DType compute,
                                             Device device = kCpuDevice) {
  auto model = std::make_unique<Decoder>(config, compute, 1, device);
  const SafetensorsFile weights(file);
  size_t loaded = 0;
  for (const auto& parameter : model->parameters().all()) {
    Tensor host = Tensor::empty(parameter->master.shape(), parameter->master.dtype());
    assign(host, to_doubles(weights.read(parameter->name)));
    parameter->set(host);
    ++loaded;
  }
  CHECK(loaded == weights.names().size());
  return model;
}

inline std::unique_ptr<Decoder> load(const std::string& family, DType compute,
                                     Device device = kCpuDevice) {
  return load_weights(read_hf_config(kGoldens / family / "config.json"),
                      kGoldens / family / "model.safetensors", compute, device);
}

inline std::unique_ptr<Decoder> load_mixer(const std::string& mixer, DType compute,
                                           Device device = kCpuDevice) {
  const fs::path folder = kMixerGoldens / mixer;
  return load_weights(load_model_config(folder / "model.yaml"), folder / "model.safetensors", compute, device);
}

/// Tokens and documents of a file of expected values.
struct GoldenInput {
  Tensor tokens;
  SequenceLayout layout;

  GoldenInput(const SafetensorsFile& expected, Device device)
      : tokens(expected.read("input_ids").to(device)) {
    std::vector<int64_t> offsets;
    for (const double offset : to_doubles(expected.read("document_offsets")))
      offsets.push_back(static_cast<int64_t>(offset));
    layout = SequenceLayout::packed(offsets, device);
  }
};

inline double worst_error(const Tensor& got, const Tensor& expected) {
  const auto a = to_doubles(got.to(kCpuDevice)), b = to_doubles(expected);
  REQUIRE(a.size() == b.size());
  double worst = 0, scale = 1e-3;
  for (const double value : b) scale = std::max(scale, std::abs(value));
  for (size_t i = 0; i < a.size(); ++i) worst = larger_or_nan(worst, std::abs(a[i] - b[i]));
  return worst / scale;
}

/// Logits, losses and all gradients of a model against a file of expected values.
inline void check_golden(const Decoder& model, const fs::path& file, double tolerance,
                         bool recompute = false, const GatePhase& gates = {}) {
  const Device device = model.device();
  const SafetensorsFile expected(file);
  auto [tokens, layout] = GoldenInput(expected, device);
  layout.set_gates(gates);
  Tensor targets = expected.read("targets");
  for (int32_t& target : targets.span<int32_t>())
    if (target == -100) target = -1;  // PyTorch's mark of a token without a target
  targets = targets.to(device);

  CHECK(worst_error(model.logits(model.forward(tokens, layout)), expected.read("logits")) <
        tolerance);
  const LinearCrossEntropy loss = model.loss(tokens, targets, layout, recompute);
  CHECK(worst_error(loss.losses, expected.read("token_loss")) < tolerance);
  const double valid = expected.read("valid_targets").item();
  backward(scale(loss.loss_sum, 1 / valid));
  for (const auto& parameter : model.parameters().all()) {
    CAPTURE(parameter->name);
    CHECK(worst_error(parameter->variable.grad(), expected.read("grad." + parameter->name)) <
          tolerance);
  }
}

inline void check_family(const std::string& family, const std::string& file, DType compute,
                         double tolerance, bool recompute = false, Device device = kCpuDevice) {
  CAPTURE(family);
  CAPTURE(file);
  check_golden(*load(family, compute, device), kGoldens / family / file, tolerance, recompute);
}

inline void check_mixer(const std::string& mixer, DType compute, double tolerance,
                        bool recompute = false, Device device = kCpuDevice) {
  CAPTURE(mixer);
  GatePhase soft;
  soft.mode = GateMode::kSoft;
  check_golden(*load_mixer(mixer, compute, device), kMixerGoldens / mixer / "expected.safetensors",
               tolerance, recompute, soft);
}

inline const std::vector<std::string> kFamilies = {"llama",       "llama3",    "qwen3",
                                            "qwen2",       "mistral",   "minicpm",
                                            "smollm2",     "rope_linear", "rope_yarn",
                                            "rope_longrope"};

}  // namespace lh::test
