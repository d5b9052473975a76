#include "train/run_state.h"

#include <omp.h>

#include <cstdlib>

#include "base/log.h"
#include "runtime/cpu_info.h"
#include "runtime/gpu.h"

namespace lh {

Device resolve_device(const std::string& wanted, int local_rank) {
  if (wanted == "cpu") return kCpuDevice;
  std::string reason = "this build has only the CPU backend";
  if constexpr (kWithCuda) {
    if (const int devices = gpu::device_count(); devices > 0)
      return {DeviceKind::kCuda, static_cast<int8_t>(local_rank % devices)};
    reason = gpu::unavailable_reason();
  }
  if (wanted == "cuda") fail<ConfigError>("run.device: cuda was asked for, but {}", reason);
  if constexpr (kWithCuda) log_info("[device] no CUDA device ({}): computing on the CPU", reason);
  return kCpuDevice;
}

DType resolve_compute(const PrecisionConfig& precision, Device device) {
  if (precision.compute == "bf16") return DType::kBF16;
  if (precision.compute == "fp32") return DType::kF32;
  if (!device.is_cpu()) return DType::kBF16;
  return cpu_info().amx_bf16 || cpu_info().avx512_bf16 ? DType::kBF16 : DType::kF32;
}

ModelConfig resolve_model(const Recipe& recipe, const Tokenizer& tokenizer) {
  ModelConfig model = recipe.model;
  if (model.vocab_size == 0) model.vocab_size = tokenizer.vocab_size();
  if (model.vocab_size < tokenizer.vocab_size())
    fail<ConfigError>("model.vocab_size is {}, but the tokenizer '{}' has {} tokens",
                      model.vocab_size, recipe.data.tokenizer, tokenizer.vocab_size());
  return model;
}

std::unique_ptr<Tokenizer> make_tokenizer(const std::string& name) {
  if (name == "bytes") return make_byte_tokenizer();
  if (const auto size = integers_vocab(name)) return make_integer_tokenizer(*size);
  return load_tokenizer(name);
}

void use_threads(int64_t threads) {
  if (threads == 0 && std::getenv("OMP_NUM_THREADS") != nullptr) return;
  omp_set_num_threads(static_cast<int>(threads > 0 ? threads : cpu_info().logical_cores));
}

}  // namespace lh
