// What a run resumes from, and where a run's files live.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "config/recipe.h"
#include "models/decoder.h"
#include "optim/optimizer.h"
#include "tokenizer/tokenizer.h"

namespace lh {

/// Tensors and counters of one moment of training.
struct RunProgress {
  int64_t step = 0;           // completed optimizer steps
  double best_valid_loss = 0;  // 0: no evaluation yet
  int64_t evaluated_step = -1;  // of the last finished evaluation: a stopped one is made up for
};

/// run.device: auto is a CUDA device if there is one, else the CPU; processes of a machine take its devices
/// in turn. ConfigError when cuda is asked for and can't be had.
Device resolve_device(const std::string& wanted, int local_rank = 0);

/// bf16 or f32: what the recipe's precision.compute means on this device.
DType resolve_compute(const PrecisionConfig& precision, Device device);

/// The recipe's model with vocab_size filled in from the tokenizer. ConfigError when the recipe
/// gives a smaller one than the tokenizer needs.
ModelConfig resolve_model(const Recipe& recipe, const Tokenizer& tokenizer);

/// "bytes", "integers:N" or a tokenizer.json.
std::unique_ptr<Tokenizer> make_tokenizer(const std::string& name);

/// Sets the number of OpenMP threads: 0 means all usable cores.
void use_threads(int64_t threads);

}  // namespace lh
