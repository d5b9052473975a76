// longhand eval, longhand generate and longhand recipe hybrid: what to do with a checkpoint.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <utility>
#include <map>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "config/load.h"
#include "train/evaluate.h"
#include "train/generate.h"
#include "train/hybrid_recipe.h"
#include "train/saved_run.h"
#include "train/signals.h"
#include "train/training_data.h"

namespace lh {

namespace {

void print_density(const MixerReport& report, const Decoder& model) {
  const MixerFigure& density = report.figure(kKvDensity);
  if (!density.seen()) return;
  const MixerFigure& cache = report.figure(kCacheFraction);
  const double fraction = cache.total().value();
  const double dense = static_cast<double>(cache.mixers.size()) * 2 *
                       static_cast<double>(model.config().resolved_num_kv_heads() * model.config().resolved_head_dim()) *
                       static_cast<double>(dtype_size(model.parameters().compute_dtype()));
  fmt::print("kv density     {:.4f} of the keys outside the window\n", density.total().value());
  fmt::print("kv cache       {:.4f} of all keys: {} instead of {} a token in self-pruning layers\n\n", fraction,
             format_bytes(fraction * dense), format_bytes(dense));
  fmt::print("layer: density per kv head\n");
  for (const auto& [mixer, heads] : density.mixers) {
    fmt::print("{}:", mixer);
    for (const ReportedMean& head : heads) fmt::print(" {:.3f}", head.value());
    fmt::print("\n");
  }
}

/// A row per layer, a column per number, and all layers together in the last row.
void print_mixers(const MixerReport& report, const Decoder& model) {
  print_density(report, model);
  std::map<std::string, std::map<std::string, double>, ByLayer> rows;
  std::map<std::string, double> last;
  for (const auto& [name, figure] : report.figures()) {
    if (figure.by_head || !figure.seen()) continue;
    last[name] = figure.total().value();
    for (const auto& [mixer, means] : figure.mixers) rows[mixer][name] = means.front().value();
  }
  if (rows.empty()) return;
  const size_t width = rows.rbegin()->first.size();
  fmt::print("\n{:<{}}", "layer", width);
  for (const auto& [name, value] : last) fmt::print("  {}", name);
  const auto print_row = [&](const std::string& title, const std::map<std::string, double>& row) {
    fmt::print("\n{:<{}}", title, width);
    for (const auto& [name, value] : last) {
      const auto own = row.find(name);
      fmt::print("  {:>{}}", own == row.end() ? "-" : fmt::format("{:.4g}", own->second), name.size());
    }
  };
  for (const auto& [mixer, row] : rows) print_row(mixer, row);
  print_row("all", last);
  fmt::print("\n");
}

/// Behind the size of a cache: how much of it pruning leaves; nothing without self-pruning layers.
std::string kept_keys_text(const KeptKeys& keys) {
  if (keys.all == 0) return "";
  const auto share = static_cast<double>(keys.kept) / static_cast<double>(keys.all);
  return fmt::format(", of which self-pruning layers take {} for {:.1f} % of their keys ({} for all)",
                     format_bytes(static_cast<double>(keys.bytes)), 100 * share,
                     format_bytes(static_cast<double>(keys.dense_bytes)));
}

void print_text_figures(const EvalResult& result, const Decoder& model) {
  fmt::print("targets        {} tokens, {} of text\n", result.targets,
             format_bytes(static_cast<double>(result.text_bytes)));
  fmt::print("loss           {:.4f} nats per token\n", result.loss);
  if (result.soft_loss) fmt::print("  soft gates   {:.4f}\n", *result.soft_loss);
  fmt::print("perplexity     {:.3f}\n", result.perplexity());
  fmt::print("bits per byte  {:.4f}\n", result.bits_per_byte);
  print_mixers(result.mixers, model);
  fmt::print("\ncontext        loss     targets\n");
  for (const auto& bucket : result.by_position)
    fmt::print("{:>6} to {:<6}{:.4f}   {}\n", bucket.begin, bucket.end - 1, bucket.loss,
               bucket.targets);
  fmt::print("\n{} tokens/s\n",
             format_count(static_cast<double>(result.targets) / result.seconds));
}

/// A checkpoint and what to evaluate it on.
struct Evaluation {
  LoadedModel loaded;
  ValidData data;

  Evaluation(const std::string& checkpoint, const std::vector<std::string>& shards, int64_t tokens)
      : loaded(load_model(checkpoint)) {
    Recipe recipe = loaded.recipe;
    recipe.eval.tokens = tokens;
    if (!shards.empty()) {
      recipe.data.valid = shards;
      recipe.data.valid_examples = 0;
    }
    if (!recipe.data.has_valid())
      fail<ConfigError>("the recipe of {} names no data.valid and no data.valid_examples: give "
                        "--data SHARD",
                        loaded.checkpoint.string());
    data = open_valid_data(recipe, *loaded.tokenizer);
  }

  bool has_learned_gates() const { return loaded.model->config().has_learned_gates(); }

  EvalResult run(const GatePhase& gates) const {
    ProgressLine progress;
    const EvalResult result = evaluate(
        *loaded.model, data, 8, [] { return stop_signal() != 0; },
        [&](double share) { progress.update(share, "evaluating"); }, nullptr, gates);
    progress.clear();
    return result;
  }
};

GateControl::Kind control_kind(const std::string& name) {
  if (name == "shuffled") return GateControl::Kind::kShuffled;
  return name == "random" ? GateControl::Kind::kRandom : GateControl::Kind::kConstant;
}

/// ConfigError where no key lies outside a window: then no head keeps more than another.
void require_density(const MixerFigure& density) {
  if (!density.seen())
    fail<ConfigError>("no document is longer than the window, so gates have nothing to keep: give longer ones with "
                      "--data SHARD");
}

}  // namespace

int eval_command(const EvalArguments& arguments) {
  use_threads(arguments.threads);
  const Evaluation evaluation(arguments.checkpoint, arguments.data, arguments.tokens);
  const std::string checkpoint = evaluation.loaded.checkpoint.string();
  const bool controlled = !arguments.gate_control.empty();
  if (!evaluation.has_learned_gates() &&
      (arguments.soft_gates || arguments.kv_threshold || controlled))
    fail<ConfigError>("--kv-threshold, --soft-gates, --gate-control: for models with sp_kv layers; "
                      "{} has none",
                      checkpoint);
  if (arguments.kv_threshold && !(*arguments.kv_threshold > 0 && *arguments.kv_threshold < 1))
    fail<ConfigError>("--kv-threshold: expected above 0 and below 1, got {}", *arguments.kv_threshold);
  if (controlled && arguments.soft_gates)
    fail<ConfigError>("--gate-control replaces hard gates: leave out --soft-gates");
  GatePhase gates;
  if (arguments.soft_gates) gates.mode = GateMode::kSoft;
  gates.threshold = arguments.kv_threshold;
  install_stop_signals();
  GateControl control;
  if (controlled) {
    const EvalResult learned = evaluation.run(gates);
    if (learned.stopped) return 128 + stop_signal();
    const MixerFigure& density = learned.mixers.figure(kKvDensity);
    require_density(density);
    control = GateControl::matching(control_kind(arguments.gate_control), density, 1);
    gates.control = &control;
  }
  const EvalResult result = evaluation.run(gates);
  if (result.stopped)
    log_warn("stopped early: {}", result.targets > 0 ? "these figures are of a part of the data"
                                                     : "nothing was evaluated");
  if (result.targets == 0) return 128 + stop_signal();
  fmt::print("checkpoint     {}\n", checkpoint);
  if (evaluation.data.text) print_text_figures(result, *evaluation.loaded.model);
  else print_mixers(result.mixers, *evaluation.loaded.model);
  for (const TaskResult& task : result.tasks) fmt::print("{}\n", task.line());
  return result.stopped ? 128 + stop_signal() : 0;
}

int recipe_hybrid_command(const HybridArguments& arguments) {
  use_threads(arguments.threads);
  if (std::filesystem::exists(arguments.out))
    fail<ConfigError>("--out: {} exists: choose another name, or remove it", arguments.out);
  const Evaluation evaluation(arguments.checkpoint, arguments.data, arguments.tokens);
  if (!evaluation.has_learned_gates())
    fail<ConfigError>("a hybrid is made from a model with sp_kv layers; {} has none",
                      evaluation.loaded.checkpoint.string());
  install_stop_signals();
  const EvalResult result = evaluation.run({});
  if (result.stopped) return 128 + stop_signal();
  const MixerFigure& density = result.mixers.figure(kKvDensity);
  require_density(density);
  const Recipe hybrid =
      hybrid_recipe(evaluation.loaded.recipe, density, arguments.global_heads);
  double covered = 0, all = 0;
  int64_t rank = 0;
  fmt::print("rank  density  head\n");
  for (const RankedHead& head : heads_by_density(density)) {
    const bool global = rank++ < arguments.global_heads;
    all += head.share;
    if (global) covered += head.share;
    fmt::print("{:>4}  {:.4f}   {} kv head {}{}\n", rank, head.share, head.mixer, head.head,
               global ? ", global" : "");
  }
  write_file_atomically(
      arguments.out,
      fmt::format("# Made by longhand recipe hybrid: the {} densest of {} key/value heads of a model with "
                  "sp_kv layers\n# are global, the others local. The model's gates kept {:.4f} of the keys "
                  "outside the window, {:.4f}\n# of those in the global heads.\n{}",
                  arguments.global_heads, rank, density.total().value(),
                  all > 0 ? covered / all : 0, dump_recipe(hybrid)));
  fmt::print("{}: {} of {} heads global; they hold {:.1f} % of the keys that were kept\n", arguments.out,
             arguments.global_heads, rank, all > 0 ? 100 * covered / all : 0);
  return 0;
}

int generate_command(const GenerateArguments& arguments) {
  use_threads(arguments.threads);
  GenerateOptions options;
  options.max_tokens = arguments.tokens;
  options.sampling = {arguments.temperature, arguments.top_k, arguments.top_p};
  options.seed = arguments.seed;
  options.stop_at_end_of_text = !arguments.ignore_end;
  check_sampling(options.sampling);
  if (arguments.tokens < 1)
    fail<ConfigError>("--tokens: expected at least 1, got {}", arguments.tokens);
  const LoadedModel loaded = load_model(arguments.checkpoint);
  install_stop_signals();
  bool begun = false;
  const auto begin = [&] {  // when prompt and options have proved good
    if (!std::exchange(begun, true)) fmt::print("{}", arguments.prompt);
  };
  const GenerateResult result = generate(*loaded.model, *loaded.tokenizer, arguments.prompt,
                                         options, [&](const std::string& text) {
                                           begin();
                                           fmt::print("{}", text);
                                           std::fflush(stdout);
                                           return stop_signal() == 0;
                                         });
  begin();
  fmt::print("\n");
  std::fflush(stdout);  // before the log line on stderr
  const auto made = static_cast<double>(result.tokens.size());
  const double rate = result.decode_seconds > 0 && made > 1 ? (made - 1) / result.decode_seconds : 0;
  log_info("[generate] {} prompt tokens in {}; {} new tokens, {:.1f} tokens/s; cache {}{}",
           result.prompt_tokens, format_duration(result.prompt_seconds), result.tokens.size(),
           rate, format_bytes(static_cast<double>(result.cache_bytes)),
           kept_keys_text(result.kept_keys));
  return stop_signal() != 0 ? 128 + stop_signal() : 0;
}

}  // namespace lh
