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
#include "train/team.h"

namespace lh {

/// What a checkpoint is made of and restored into.
struct RunParts {
  const Recipe& recipe;
  const Tokenizer& tokenizer;
  const TrainingBatches& data;
  Decoder& model;
  Optimizer& optimizer;
  const Team* team = nullptr;  // whose processes call what follows together; null: this one alone

  bool leads() const { return team == nullptr || team->leads(); }
};

/// The leader writes and gets the path; the others send it their parts of the optimizer's state.
std::filesystem::path save_run(const std::filesystem::path& folder, const RunParts& parts,
                               const RunProgress& progress, bool best);

/// Restores model, optimizer and progress from the newest usable checkpoint in `folder`; nullopt
/// when there is none. The leader reads: the others need not see its files. IoError or ConfigError
/// when it belongs to another model, tokenizer or data order; nothing is changed then.
std::optional<RunProgress> resume_run(const std::filesystem::path& folder, const RunParts& parts);

/// The leader writes the files of a checkpoint into an existing empty folder.
void write_run_files(const std::filesystem::path& folder, const RunParts& parts,
                     const RunProgress& progress);
/// What the others do meanwhile.
void send_run_state(const RunParts& parts);
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
