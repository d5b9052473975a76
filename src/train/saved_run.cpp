#include "train/saved_run.h"

#include <charconv>

#include "base/file.h"
#include "base/log.h"
#include "checkpoint/checkpoint_folder.h"
#include "checkpoint/model_weights.h"
#include "checkpoint/training_state.h"
#include "config/load.h"
#include "train/gate_schedule.h"

namespace lh {
namespace fs = std::filesystem;
namespace {

/// Where processes keep their parts of the masters alone.
bool masters_in_parts(const RunParts& parts) {
  return parts.optimizer.is_shared() && parts.model.parameters().compute_dtype() == DType::kBF16;
}

/// All of a tensor of parameter `index` that the processes may hold in parts, for the leader.
Tensor whole(const RunParts& parts, const Tensor& held, size_t index, bool in_parts, const char* label) {
  if (!in_parts) return held;
  return parts.team->gather(held, parts.optimizer.shards().counts(index), label);
}

std::vector<StoredTensor> weights(const RunParts& parts, const std::string& prefix) {
  std::vector<StoredTensor> stored;
  const auto& all = parts.model.parameters().all();
  for (size_t i = 0; i < all.size(); ++i) {
    const Parameter& one = *all[i];
    stored.push_back({prefix + one.name, one.master.dtype(), one.shape(), [&parts, &one, i] {
                        return whole(parts, one.master, i, masters_in_parts(parts), "weights");
                      }});
  }
  return stored;
}

/// Everything a resumed run continues from: the weights, then the optimizer's state.
std::vector<StoredTensor> run_tensors(const RunParts& parts) {
  std::vector<StoredTensor> stored = weights(parts, "weight.");
  for (const StateTensor& state : parts.optimizer.state()) {
    const Shape& shape = parts.model.parameters().all()[state.parameter]->shape();
    stored.push_back({"optimizer." + state.name, state.tensor.dtype(), shape, [&parts, state] {
                        return whole(parts, state.tensor, state.parameter,
                                     parts.optimizer.is_shared(), "optimizer state");
                      }});
  }
  return stored;
}

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
  write_training_state(folder / "state.h5", meta, run_tensors(parts));
  write_safetensors(folder / "model.safetensors", weights(parts, ""), {{"format", "pt"}});
  write_file_atomically(folder / "recipe.yaml", dump_recipe(parts.recipe));
  write_file_atomically(folder / "tokenizer.json", parts.tokenizer.save_json());
}

void send_run_state(const RunParts& parts) {
  if (!parts.optimizer.is_shared()) return;
  for (const StoredTensor& tensor : run_tensors(parts)) tensor.read();
  for (const StoredTensor& tensor : weights(parts, "")) tensor.read();
}

namespace {

/// A checkpoint that fits the run, opened by the leader.
struct OpenRun {
  std::unique_ptr<TrainingStateFile> state;
  RunProgress progress;
  int64_t optimizer_steps = 0;
};

/// The weights alone, by their own names: a changed model is the usual reason for a checkpoint that does
/// not fit.
void check_model(const TrainingStateFile& state, const RunParts& parts, const fs::path& file) {
  std::string problems;
  for (const StoredTensor& weight : weights(parts, "")) {
    const std::string expected = fmt::format("\n  {}: expected {}{}, got ", weight.name,
                                             dtype_name(weight.dtype), weight.shape.str());
    const std::string name = "weight." + weight.name;
    if (!state.contains(name)) problems += expected + "none";
    else if (!(state.shape(name) == weight.shape))
      problems += expected + state.shape(name).str();
  }
  for (const std::string& name : state.names())
    if (name.starts_with("weight.") && parts.model.parameters().find(name.substr(7)) == nullptr)
      problems += fmt::format("\n  {}: expected none, as the model has no such parameter, got {}",
                              name.substr(7), state.shape(name).str());
  if (!problems.empty())
    fail<IoError>("{} is of another model than this recipe's:{}\nResume with the model that was saved, "
                  "or start another run from its weights with init.path (longhand recipe explain init)",
                  file.string(), problems);
}

/// What another recipe than the checkpoint's changes without a word: a mixer of the same parameters, which is said, and
/// gates that would open again after they have closed, which is refused: their predictor has learned nothing since.
void check_recipe(const fs::path& folder, const RunParts& parts, int64_t step) {
  const Recipe& now = parts.recipe;
  const Recipe saved = load_recipe(folder / "recipe.yaml", {});
  for (const auto& [name, mixer] : now.model.mixers) {
    const auto old = saved.model.mixers.find(name);
    if (old != saved.model.mixers.end() && old->second != mixer)
      log_warn("[resume] model.mixers.{} is not as in {}", name, (folder / "recipe.yaml").string());
  }
  if (step == 0 || !now.model.has_learned_gates() || !saved.model.has_learned_gates()) return;
  const auto place = [](const GatePhase& phase) {
    return phase.learns() ? 0 : phase.mode == GateMode::kAnneal ? 1 : 2;
  };
  static constexpr const char* kNames[] = {"soft", "annealed", "hard"};
  const int was = place(gate_phase(saved, step - 1)), is = place(gate_phase(now, step));
  if (is >= was) return;
  const GateScheduleConfig& gates = saved.schedule.gates;
  fail<ConfigError>("{}: its gates were {} at step {} and would be {} again: to go on set schedule.gates.soft_steps={} "
                    "and schedule.gates.anneal_steps={}, as it had them, or start another run with init.path",
                    folder.string(), kNames[was], step, kNames[is],
                    gates.resolved_soft_steps(saved.schedule.steps), gates.resolved_anneal_steps(saved.schedule.steps));
}

OpenRun open_run(const fs::path& folder, const RunParts& parts) {
  const fs::path file = folder / "state.h5";
  OpenRun run{std::make_unique<TrainingStateFile>(file), {}, 0};
  const TrainingStateFile& state = *run.state;
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
  run.progress.step = number<int64_t>(state, "step", file);
  run.progress.best_valid_loss = number<double>(state, "best_valid_loss", file);
  run.progress.evaluated_step = number<int64_t>(state, "evaluated_step", file);
  run.optimizer_steps = number<int64_t>(state, "optimizer_steps", file);
  check_model(state, parts, file);
  check_recipe(folder, parts, run.progress.step);
  state.check(run_tensors(parts));
  return run;
}

/// Takes the counters and tensors of the leader's checkpoint, one tensor at a time. `run` is not looked at by the
/// others.
RunProgress take_run(OpenRun run, const RunParts& parts) {
  const auto spread = [&](Tensor& t, const std::string& name) {
    if (parts.team != nullptr) parts.team->spread(t, "resume " + name);
  };
  Tensor counters = Tensor::from(
      std::vector<int64_t>{run.progress.step, run.progress.evaluated_step, run.optimizer_steps}, {3});
  Tensor best = Tensor::from(std::vector<double>{run.progress.best_valid_loss}, {1});
  spread(counters, "counters");
  spread(best, "best validation loss");
  const auto values = counters.span<int64_t>();
  for (const auto& parameter : parts.model.parameters().all()) {
    Tensor value = Tensor::empty(parameter->shape(), parameter->master.dtype());
    if (parts.leads()) run.state->read("weight." + parameter->name, value);
    spread(value, parameter->name);
    parameter->set(value);
  }
  for (StateTensor& state : parts.optimizer.state()) {
    const std::string name = "optimizer." + state.name;
    if (!parts.optimizer.is_shared()) {
      if (parts.leads()) run.state->read(name, state.tensor);
      spread(state.tensor, name);
      continue;
    }
    const Shape& shape = parts.model.parameters().all()[state.parameter]->shape();
    Tensor whole = Tensor::empty(parts.leads() ? shape : Shape{0}, state.tensor.dtype());
    if (parts.leads()) run.state->read(name, whole);
    parts.team->scatter(whole, parts.optimizer.shards().counts(state.parameter), state.tensor,
                        "resume " + name);
  }
  parts.optimizer.set_steps(values[2]);
  return {.step = values[0], .best_valid_loss = best.item(), .evaluated_step = values[1]};
}

}  // namespace

RunProgress read_run_files(const fs::path& folder, const RunParts& parts) {
  return take_run(parts.leads() ? open_run(folder, parts) : OpenRun{}, parts);
}

fs::path save_run(const fs::path& folder, const RunParts& parts, const RunProgress& progress,
                  bool best) {
  if (!parts.leads()) {
    send_run_state(parts);
    return {};
  }
  const fs::path path = write_checkpoint(
      folder, progress.step, [&](const fs::path& into) { write_run_files(into, parts, progress); });
  if (best) mark_best(path);
  prune_checkpoints(folder, parts.recipe.checkpoint.keep_last, parts.recipe.checkpoint.keep_best);
  return path;
}

std::optional<RunProgress> resume_run(const fs::path& folder, const RunParts& parts) {
  const auto latest = parts.leads() ? latest_checkpoint(folder) : std::nullopt;
  const int64_t found = latest.has_value() ? 1 : 0;
  if ((parts.team != nullptr ? parts.team->spread(found, "checkpoint found") : found) == 0)
    return std::nullopt;
  return read_run_files(latest.value_or(fs::path()), parts);
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
  const ModelWeights saved(loaded.checkpoint);
  std::vector<NamedTensor> wanted;
  for (const auto& parameter : loaded.model->parameters().all())
    wanted.push_back({parameter->name, parameter->master});
  saved.check(wanted,
              {.closing_advice = "\nThe recipe.yaml beside the weights describes another model"});
  for (const NamedTensor& target : wanted) saved.read(target);
  for (const auto& parameter : loaded.model->parameters().all()) parameter->set(parameter->master);
  return loaded;
}

}  // namespace lh
