// Hugging Face config.json to ModelConfig: Llama, Mistral, Qwen2, Qwen3 and MiniCPM families.
#pragma once

#include <filesystem>

#include "config/model_config.h"

namespace lh {

/// Reads both forms of rotary settings (rope_theta with rope_scaling, and rope_parameters of
/// transformers 5). IoError names the file and the key that is missing, wrong or not supported.
ModelConfig read_hf_config(const std::filesystem::path& config_json);

}  // namespace lh
