// longhand eval and longhand generate: what to do with a checkpoint.
#include <fmt/format.h>

#include <cstdio>

#include "base/log.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "train/evaluate.h"
#include "train/generate.h"
#include "train/saved_run.h"
#include "train/signals.h"
#include "train/training_data.h"

namespace lh {

namespace {

void print_text_figures(const EvalResult& result) {
  fmt::print("targets        {} tokens, {} of text\n", result.targets,
             format_bytes(static_cast<double>(result.text_bytes)));
  fmt::print("loss           {:.4f} nats per token\n", result.loss);
  fmt::print("perplexity     {:.3f}\n", result.perplexity());
  fmt::print("bits per byte  {:.4f}\n", result.bits_per_byte);
  fmt::print("\ncontext        loss     targets\n");
  for (const auto& bucket : result.by_position)
    fmt::print("{:>6} to {:<6}{:.4f}   {}\n", bucket.begin, bucket.end - 1, bucket.loss,
               bucket.targets);
  fmt::print("\n{} tokens/s\n",
             format_count(static_cast<double>(result.targets) / result.seconds));
}

}  // namespace

int eval_command(const EvalArguments& arguments) {
  use_threads(arguments.threads);
  const LoadedModel loaded = load_model(arguments.checkpoint);
  Recipe recipe = loaded.recipe;
  recipe.eval.tokens = arguments.tokens;
  if (!arguments.data.empty()) {
    recipe.data.valid = arguments.data;
    recipe.data.valid_examples = 0;
  }
  if (!recipe.data.has_valid())
    fail<ConfigError>("the recipe of {} names no data.valid and no data.valid_examples: give --data "
                      "SHARD",
                      loaded.checkpoint.string());
  const ValidData data = open_valid_data(recipe, *loaded.tokenizer);
  install_stop_signals();
  ProgressLine progress;
  const EvalResult result = evaluate(
      *loaded.model, data, 8, [] { return stop_signal() != 0; },
      [&](double share) { progress.update(share, "evaluating"); });
  progress.clear();
  if (result.stopped)
    log_warn("stopped early: {}", result.targets > 0 ? "these figures are of a part of the data"
                                                     : "nothing was evaluated");
  if (result.targets == 0) return 128 + stop_signal();
  fmt::print("checkpoint     {}\n", loaded.checkpoint.string());
  if (data.text) print_text_figures(result);
  for (const TaskResult& task : result.tasks) fmt::print("{}\n", task.line());
  return result.stopped ? 128 + stop_signal() : 0;
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
  fmt::print("{}", arguments.prompt);
  std::fflush(stdout);
  const GenerateResult result = generate(*loaded.model, *loaded.tokenizer, arguments.prompt,
                                         options, [](const std::string& text) {
                                           fmt::print("{}", text);
                                           std::fflush(stdout);
                                           return stop_signal() == 0;
                                         });
  fmt::print("\n");
  std::fflush(stdout);  // before the log line on stderr
  const auto made = static_cast<double>(result.tokens.size());
  const double rate = result.decode_seconds > 0 && made > 1 ? (made - 1) / result.decode_seconds : 0;
  log_info("[generate] {} prompt tokens in {}; {} new tokens, {:.1f} tokens/s; cache {}",
           result.prompt_tokens, format_duration(result.prompt_seconds), result.tokens.size(),
           rate, format_bytes(static_cast<double>(result.cache_bytes)));
  return stop_signal() != 0 ? 128 + stop_signal() : 0;
}

}  // namespace lh
