#include "train/saved_run.h"

#include <charconv>

#include "base/file.h"
#include "base/log.h"
#include "checkpoint/checkpoint_folder.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/training_state.h"
#include "config/load.h"

namespace lh {
namespace fs = std::filesystem;
namespace {

std::vector<NamedTensor> weights(const Decoder& model) {
  std::vector<NamedTensor> all;
  for (const auto& parameter : model.parameters().all())
    all.push_back({parameter->name, parameter->master});
  return all;
}

}  // namespace

std::vector<NamedTensor> live_tensors(const Decoder& model, Optimizer& optimizer) {
  std::vector<NamedTensor> all = weights(model);
  for (NamedTensor& named : all) named.name = "weight." + named.name;
  for (NamedTensor& named : optimizer.state())
    all.push_back({"optimizer." + named.name, named.tensor});
  return all;
}

namespace {

/// What must not change between saving and resuming, or the data order would silently differ.
std::map<std::string, std::string> identity(const RunParts& parts) {
  const Recipe& recipe = parts.recipe;
  return {{"tokenizer", parts.tokenizer.digest()},
          {"run.seed", fmt::format("{}", recipe.run.seed)},
          {"content of data.train", parts.data.content()},
          {"data.seq_tokens", fmt::format("{}", recipe.data.seq_tokens)},
          {"data.shuffle", recipe.data.shuffle ? "true" : "false"},
          {"schedule.batch_tokens", fmt::format("{}", recipe.schedule.batch_tokens)}};
}

template <typename T>
T number(const TrainingStateFile& state, const std::string& key, const fs::path& file) {
  T value{};
  const auto found = state.meta().find(key);
  if (found == state.meta().end()) fail<IoError>("{}: /meta has no '{}'", file.string(), key);
  const std::string& text = found->second;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || rest != text.data() + text.size())
    fail<IoError>("{}: /meta '{}' is '{}', expected a number", file.string(), key, text);
  return value;
}

}  // namespace

void check_tokenizer(const TokenShard& shard, const Tokenizer& tokenizer) {
  if (shard.info().tokenizer_digest != tokenizer.digest())
    fail<ConfigError>("{} was prepared with another tokenizer than data.tokenizer: prepare it again "
                      "with this one, or name the one it was made with",
                      shard.path().string());
}

void write_run_files(const fs::path& folder, const RunParts& parts, const RunProgress& progress) {
  std::map<std::string, std::string> meta = identity(parts);
  meta["step"] = fmt::format("{}", progress.step);
  meta["optimizer_steps"] = fmt::format("{}", parts.optimizer.steps());
  meta["best_valid_loss"] = fmt::format("{}", progress.best_valid_loss);
  meta["evaluated_step"] = fmt::format("{}", progress.evaluated_step);
  write_training_state(folder / "state.h5", meta, live_tensors(parts.model, parts.optimizer));
  write_safetensors(folder / "model.safetensors", weights(parts.model), {{"format", "pt"}});
  write_file_atomically(folder / "recipe.yaml", dump_recipe(parts.recipe));
  write_file_atomically(folder / "tokenizer.json", parts.tokenizer.save_json());
}

RunProgress read_run_files(const fs::path& folder, const RunParts& parts) {
  const fs::path file = folder / "state.h5";
  const TrainingStateFile state(file);
  std::string differences;
  for (const auto& [key, value] : identity(parts)) {
    const auto saved = state.meta().find(key);
    if (saved == state.meta().end() || saved->second != value)
      differences += fmt::format("\n  {}: saved with {}, now {}", key,
                                 saved == state.meta().end() ? "nothing" : saved->second, value);
  }
  if (!differences.empty())
    fail<ConfigError>("{} belongs to another run; resuming would change the order of the data:{}\n"
                      "Restore these, or start another run (run.name, run.out_dir)",
                      folder.string(), differences);
  RunProgress progress;
  progress.step = number<int64_t>(state, "step", file);
  progress.best_valid_loss = number<double>(state, "best_valid_loss", file);
  progress.evaluated_step = number<int64_t>(state, "evaluated_step", file);
  const auto optimizer_steps = number<int64_t>(state, "optimizer_steps", file);
  state.restore(live_tensors(parts.model, parts.optimizer));
  for (const auto& parameter : parts.model.parameters().all()) parameter->refresh_compute_copy();
  parts.optimizer.set_steps(optimizer_steps);
  return progress;
}

fs::path save_run(const fs::path& folder, const RunParts& parts, const RunProgress& progress,
                  bool best) {
  const fs::path path = write_checkpoint(
      folder, progress.step, [&](const fs::path& into) { write_run_files(into, parts, progress); });
  if (best) mark_best(path);
  prune_checkpoints(folder, parts.recipe.checkpoint.keep_last, parts.recipe.checkpoint.keep_best);
  return path;
}

std::optional<RunProgress> resume_run(const fs::path& folder, const RunParts& parts) {
  const auto latest = latest_checkpoint(folder);
  if (!latest) return std::nullopt;
  return read_run_files(*latest, parts);
}

LoadedModel load_model(const fs::path& path) {
  LoadedModel loaded;
  loaded.checkpoint = find_checkpoint(path);
  loaded.recipe = load_recipe(loaded.checkpoint / "recipe.yaml");
  const fs::path tokenizer = loaded.checkpoint / "tokenizer.json";
  loaded.tokenizer = parse_tokenizer(read_file(tokenizer), tokenizer.string());
  const Device device = resolve_device(loaded.recipe.run.device);
  loaded.model = std::make_unique<Decoder>(resolve_model(loaded.recipe, *loaded.tokenizer),
                                           resolve_compute(loaded.recipe.precision, device), 0,
                                           device);
  SafetensorsFile(loaded.checkpoint / "model.safetensors").restore(weights(*loaded.model));
  for (const auto& parameter : loaded.model->parameters().all()) parameter->refresh_compute_copy();
  return loaded;
}

}  // namespace lh
