// A run's checkpoints: writing one, resuming from one, opening one for evaluation or generation.
// A checkpoint folder holds state.h5 (masters, optimizer, counters), model.safetensors (weights
// under Hugging Face names), recipe.yaml, tokenizer.json and manifest.json.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "data/batcher.h"
#include "data/token_shard.h"
#include "train/run_state.h"

namespace lh {

/// What a checkpoint is made of and restored into.
struct RunParts {
  const Recipe& recipe;
  const Tokenizer& tokenizer;
  const TrainingBatches& data;
  Decoder& model;
  Optimizer& optimizer;
};

std::filesystem::path save_run(const std::filesystem::path& folder, const RunParts& parts,
                               const RunProgress& progress, bool best);

/// Restores model, optimizer and progress from the newest usable checkpoint in `folder`; nullopt
/// when there is none. IoError or ConfigError when it belongs to another model, tokenizer or data
/// order; nothing is changed then.
std::optional<RunProgress> resume_run(const std::filesystem::path& folder, const RunParts& parts);

/// Everything a resumed run continues from, sharing storage with the live run.
std::vector<NamedTensor> live_tensors(const Decoder& model, Optimizer& optimizer);

/// Writes the files of a checkpoint into an existing empty folder.
void write_run_files(const std::filesystem::path& folder, const RunParts& parts,
                     const RunProgress& progress);
/// Reads back what write_run_files wrote.
RunProgress read_run_files(const std::filesystem::path& folder, const RunParts& parts);

/// A model ready for inference.
struct LoadedModel {
  Recipe recipe;
  std::filesystem::path checkpoint;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<Decoder> model;
};
/// Weights only. `path`: a checkpoint or a run folder.
LoadedModel load_model(const std::filesystem::path& path);

/// ConfigError when a shard was made with another tokenizer.
void check_tokenizer(const TokenShard& shard, const Tokenizer& tokenizer);

}  // namespace lh
