#include "train/replay.h"

#include <cmath>

#include "backend/reduce.h"
#include "base/file.h"
#include "checkpoint/checkpoint_folder.h"
#include "config/load.h"
#include "train/gate_schedule.h"
#include "train/saved_run.h"
#include "train/trainer.h"
#include "train/training_data.h"

namespace lh {
namespace fs = std::filesystem;

fs::path write_replay_bundle(const RunParts& parts, const RunProgress& progress,
                             const StepResult& result) {
  if (!parts.leads()) {
    send_run_state(parts);
    return {};
  }
  const fs::path folder = fs::path(parts.recipe.run_folder()) / "bad_steps";
  return write_checkpoint(folder, progress.step + 1, [&](const fs::path& into) {
    write_run_files(into, parts, progress);
    write_file_atomically(into / "reason.txt",
                          fmt::format("step {}: {} is not finite\n", progress.step + 1,
                                      result.non_finite));
  });
}

bool replay(const fs::path& bundle, const std::function<void(const std::string&)>& out) {
  verify_checkpoint(bundle);
  const Recipe recipe = load_recipe(bundle / "recipe.yaml");
  use_threads(recipe.run.threads);
  const auto tokenizer =
      parse_tokenizer(read_file(bundle / "tokenizer.json"), (bundle / "tokenizer.json").string());
  const Device device = resolve_device(recipe.run.device);
  Decoder model(resolve_model(recipe, *tokenizer), resolve_compute(recipe.precision, device),
                static_cast<uint64_t>(recipe.run.seed), device);
  const auto optimizer = make_optimizer(recipe.optim, model.parameters());
  const TrainingBatches data = open_training_data(recipe, *tokenizer);
  const RunProgress progress = read_run_files(bundle, {recipe, *tokenizer, data, model, *optimizer});
  const int64_t micro_sequences = recipe.micro_batch_tokens() / recipe.data.seq_tokens;

  int64_t ops = 0;
  std::string first_bad;
  Tensor count = Tensor::empty({1}, DType::kI64, model.device());
  set_op_observer([&](const char* name, const Tensor& tensor) {
    ++ops;
    if (!first_bad.empty() || !is_floating(tensor.dtype())) return;
    const std::string_view op = name;
    if (op == "utility_gate" || op == "reshape") return;  // -inf is a closed gate; a view adds nothing of its own
    LH_DISPATCH(tensor.device(), "replay", count_non_finite(tensor, count));
    if (count.item() > 0)
      first_bad = fmt::format("op {}, {}: {} of {} values of {} are not finite", ops, name,
                              count.item(), tensor.numel(), tensor.str());
  });
  const StepResult result = train_step(
      {.model = model,
       .optimizer = *optimizer,
       .recipe = recipe,
       .batch =
           [&](int64_t micro) {
             return data.make_batch(progress.step, micro * micro_sequences, micro_sequences);
           },
       .micro_batches = recipe.accumulation_steps(),
       .valid_targets = data.valid_targets(progress.step),
       .stop = nullptr,
       .gates = gate_phase(recipe, progress.step),
       .document_tokens = data.document_tokens(progress.step)},
      0);
  set_op_observer(nullptr);
  out(fmt::format("step {} again: loss {}, gradient norm {}", progress.step + 1, result.loss,
                  result.grad_norm));
  if (!first_bad.empty()) out("first bad tensor: " + first_bad);
  if (result.non_finite.empty()) out("this time everything was finite");
  else out(result.non_finite + " is not finite");
  return !result.non_finite.empty();
}

}  // namespace lh
