#include "cli/app.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>

#include "base/error.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/launch_arguments.h"
#include "cli/report.h"
#include "cli/version.h"
#include "launch/launch.h"

namespace lh {
namespace {

constexpr const char* kFooter =
    "\nExit codes: 0 done; 1 error; 2 wrong usage or recipe; 75 stopped by SIGTERM, SIGINT or\n"
    "SIGUSR1 after saving, or before several processes had met (run again with --resume); 128 + n\n"
    "when eval or generate was stopped by signal n. Those of launch are in its help.\n"
    "Environment: LH_LOG_LEVEL debug|info|warn|error|silent; LH_CONFIGS folder of recipe parts;\n"
    "LH_COMM_TIMEOUT seconds for another process (300), LH_HOST where the others reach this host,\n"
    "LH_BOOTSTRAP_PORT rank 0's port where MASTER_PORT can't be; "
    "LH_SIMD generic|avx2|avx512 and LH_NO_AMX=1 lower the instructions used; OMP_NUM_THREADS;\n"
    "LH_ATTENTION own|cudnn chooses the attention of CUDA devices; LH_NO_FUSED=1 computes attention by\n"
    "its definition, in f64 on the host, to compare the kernels with.";

/// What the chosen subcommand does; set while parsing, run after.
using Action = std::function<int()>;

void add_train(CLI::App& app, Action& action) {
  auto args = std::make_shared<TrainArguments>();
  CLI::App* command = app.add_subcommand("train", "Run a training recipe");
  command->add_option("recipe", args->recipe, "Recipe YAML file");
  command->add_option("--set", args->sets, "Override one key: --set optim.learning_rate=1e-3")
      ->type_name("KEY=VALUE");
  command->add_flag("--resume", args->resume,
                    "Go on from the newest checkpoint of the run, if any");
  command->add_option("--replay", args->replay,
                      "Run the step of a bundle again that a non-finite value left behind");
  command->callback([args, &action] {
    if (args->recipe.empty() == args->replay.empty())
      throw ConfigError("train: expected a recipe file or --replay BUNDLE");
    action = [args] { return train_command(*args); };
  });
}

void add_eval(CLI::App& app, Action& action) {
  auto args = std::make_shared<EvalArguments>();
  CLI::App* command =
      app.add_subcommand("eval", "Loss, perplexity and bits per byte of a checkpoint");
  command->add_option("checkpoint", args->checkpoint, "Checkpoint folder or run folder")
      ->required();
  command->add_option("--data", args->data, "Token shards (default: what the recipe evaluates on)");
  command->add_option("--tokens", args->tokens, "At most this many tokens (0: all)")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--threads", args->threads, "Threads (0: all cores)");
  command->add_option("--kv-threshold", args->kv_threshold,
                      "Utility from which sp_kv layers keep a key (default: the model's)");
  command->add_flag("--soft-gates", args->soft_gates,
                    "Weigh keys by their utility, as in training, instead of dropping them");
  command
      ->add_option("--gate-control", args->gate_control,
                   "Replace the gates of sp_kv layers by as many that nothing learned: shuffled within a "
                   "document, drawn at random, or constant by head")
      ->check(CLI::IsMember({"shuffled", "random", "constant"}));
  command->callback([args, &action] { action = [args] { return eval_command(*args); }; });
}

void add_generate(CLI::App& app, Action& action) {
  auto args = std::make_shared<GenerateArguments>();
  CLI::App* command = app.add_subcommand("generate", "Continue a prompt");
  command->add_option("checkpoint", args->checkpoint, "Checkpoint folder or run folder")
      ->required();
  command->add_option("--prompt", args->prompt, "Text to continue (default: start a document)");
  command->add_option("--tokens", args->tokens, "New tokens at most")->capture_default_str();
  command->add_option("--temperature", args->temperature, "0: the most likely token")
      ->capture_default_str();
  command->add_option("--top-k", args->top_k, "Keep the k most likely (0: all)")
      ->capture_default_str();
  command->add_option("--top-p", args->top_p, "Keep the smallest set of this probability")
      ->capture_default_str();
  command->add_option("--seed", args->seed, "Random seed")->capture_default_str();
  command->add_option("--threads", args->threads, "Threads (0: all cores)");
  command->add_flag("--ignore-end", args->ignore_end, "Go on after the end of a document");
  command->callback([args, &action] { action = [args] { return generate_command(*args); }; });
}

void add_data(CLI::App& app, Action& action) {
  CLI::App* data = app.add_subcommand("data", "Prepare and look at training data");
  data->require_subcommand(1);

  auto prepare = std::make_shared<PrepareArguments>();
  CLI::App* command = data->add_subcommand("prepare", "Text, JSONL or .gz to token shards");
  command->add_option("inputs", prepare->inputs, "Files, globs, or - for stdin")->required();
  command->add_option("--output", prepare->output, "Shard to write (.h5)")->required();
  command->add_option("--valid-output", prepare->valid_output, "Shard for held-out documents");
  command->add_option("--valid-fraction", prepare->valid_fraction, "Share of documents held out");
  command->add_option("--valid-last-bytes", prepare->valid_last_bytes,
                      "Or hold out this much of the end of the text");
  command->add_option("--tokenizer", prepare->tokenizer, "tokenizer.json, bytes or integers:N")
      ->capture_default_str();
  command->add_option("--field", prepare->field, "JSONL: the key that holds the text")
      ->capture_default_str();
  command->add_option("--split", prepare->split, "Plain text: what ends a document")
      ->check(CLI::IsMember({"file", "blank-lines", "separator"}))
      ->capture_default_str();
  command
      ->add_option("--blank-lines", prepare->blank_lines,
                   "With --split blank-lines: at least so many in a row")
      ->capture_default_str();
  command->add_option("--separator", prepare->separator,
                      "With --split separator: the string (\\n and \\t are understood)");
  command->add_flag("--skip-bad-lines", prepare->skip_bad_lines, "JSONL: skip and count bad lines");
  command->add_option("--threads", prepare->threads, "Threads (0: all cores)");
  command->callback(
      [prepare, &action] { action = [prepare] { return data_prepare_command(*prepare); }; });

  auto shard = std::make_shared<std::string>();
  auto samples = std::make_shared<int64_t>(3);
  auto verify = std::make_shared<bool>(false);
  command = data->add_subcommand("inspect", "Counts, length histogram and samples of a shard");
  command->add_option("shard", *shard, "Token shard (.h5)")->required();
  command->add_option("--samples", *samples, "Documents to print")->capture_default_str();
  command->add_flag("--verify", *verify, "Read everything and check the digest");
  command->callback(
      [=, &action] { action = [=] { return data_inspect_command(*shard, *samples, *verify); }; });

  auto task = std::make_shared<TaskArguments>();
  command = data->add_subcommand("task", "Examples of a synthetic task, answers in brackets");
  command->add_option("kind", task->kind, "palindrome, mqar, needle, ...")->required();
  command->add_option("--set", task->sets, "A setting of the task: --set pairs=4")
      ->type_name("KEY=VALUE");
  command->add_option("--samples", task->samples, "Examples to print")->capture_default_str();
  command->add_option("--seed", task->seed, "Seed, as run.seed")->capture_default_str();
  command->callback([task, &action] { action = [task] { return data_task_command(*task); }; });

  auto train = std::make_shared<TrainTokenizerArguments>();
  command = data->add_subcommand("train-tokenizer", "Learn a byte-level BPE tokenizer");
  command->add_option("inputs", train->inputs, "Files, globs, or - for stdin")->required();
  command->add_option("--output", train->output, "tokenizer.json to write")->required();
  command->add_option("--vocab-size", train->vocab_size, "Tokens")->capture_default_str();
  command->add_option("--pattern", train->pattern, "Split pattern: gpt2, llama3 or qwen2")
      ->capture_default_str();
  command->add_option("--threads", train->threads, "Threads (0: all cores)");
  command->callback(
      [train, &action] { action = [train] { return train_tokenizer_command(*train); }; });
}

void add_recipe(CLI::App& app, Action& action) {
  CLI::App* recipe = app.add_subcommand("recipe", "Explain and check recipes");
  recipe->require_subcommand(1);

  auto key = std::make_shared<std::string>();
  CLI::App* command =
      recipe->add_subcommand("explain", "Every key: type, default, units and meaning");
  command->add_option("key", *key, "One key or section, e.g. optim.learning_rate");
  command->callback([key, &action] { action = [key] { return recipe_explain_command(*key); }; });

  auto path = std::make_shared<std::string>();
  auto sets = std::make_shared<std::vector<std::string>>();
  auto dump = std::make_shared<bool>(false);
  command = recipe->add_subcommand("check", "Validate a recipe and say what it would train");
  command->add_option("recipe", *path, "Recipe YAML file")->required();
  command->add_option("--set", *sets, "Override one key")->type_name("KEY=VALUE");
  command->add_flag("--dump", *dump, "Print the fully resolved recipe");
  command->callback(
      [=, &action] { action = [=] { return recipe_check_command(*path, *sets, *dump); }; });

  auto hybrid = std::make_shared<HybridArguments>();
  command = recipe->add_subcommand(
      "hybrid", "Rank the heads of a model with sp_kv layers by how many keys they keep, and write a recipe "
                "in which the first ones see everything and the others their window");
  command->add_option("checkpoint", hybrid->checkpoint, "Checkpoint folder or run folder")->required();
  command->add_option("--global-heads", hybrid->global_heads, "Key/value heads, of all layers, that stay global")
      ->required();
  command->add_option("--out", hybrid->out, "Recipe to write")->required();
  command->add_option("--data", hybrid->data, "Token shards (default: what the recipe evaluates on)");
  command->add_option("--tokens", hybrid->tokens, "Measure on at most this many tokens (0: all)")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--threads", hybrid->threads, "Threads (0: all cores)");
  command->callback([hybrid, &action] { action = [hybrid] { return recipe_hybrid_command(*hybrid); }; });

  auto plan = std::make_shared<PlanArguments>();
  command = recipe->add_subcommand(
      "plan", "Memory, arithmetic and bytes sent of a step in a job of any size, without running it");
  command->add_option("recipe", plan->recipe, "Recipe YAML file")->required();
  command->add_option("--world", plan->world, "Processes")->capture_default_str();
  command->add_option("--rank", plan->rank, "The process whose memory and bytes are shown")
      ->capture_default_str();
  command->add_option("--device", plan->device, "What it would run on (auto: run.device, else cuda)")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command->add_option("--compute", plan->compute,
                      "Type of activations (auto: precision.compute, else bf16)")
      ->check(CLI::IsMember({"auto", "bf16", "fp32"}))
      ->capture_default_str();
  command->add_option("--vocabulary", plan->vocabulary, "Tokens, where the recipe leaves it to a tokenizer")
      ->capture_default_str();
  command->add_option("--peak-tflops", plan->peak_tflops, "Matrix product peak of one process")
      ->capture_default_str();
  command->add_option("--efficiency", plan->efficiency, "Share of that peak that a step reaches")
      ->capture_default_str();
  command->add_option("--link-gigabytes", plan->link_gigabytes, "Bytes per second that one process sends")
      ->capture_default_str();
  command->add_option("--set", plan->sets, "Override one key")->type_name("KEY=VALUE");
  command->callback([plan, &action] { action = [plan] { return recipe_plan_command(*plan); }; });
}

/// The options are parsed here; `program` is filled before, from the rest of the command line.
void add_launch(CLI::App& app, Action& action, const std::vector<std::string>& program) {
  CLI::App* command = app.add_subcommand("launch", "Start a program many times, as one job");
  auto options = add_launch_options(*command);
  command->callback([&app, &action, &program, options] {
    options->command = program;
    // longhand's own commands need no path: this very file runs them.
    const bool own = !app.get_subcommands([&](const CLI::App* known) {
                           return !program.empty() && known->get_name() == program[0];
                         }).empty();
    if (own) options->command.insert(options->command.begin(), kOwnProgram);
    action = [options] { return launch(*options); };
  });
}

void add_parity(CLI::App& app, Action& action) {
  auto args = std::make_shared<ParityArguments>();
  CLI::App* command = app.add_subcommand(
      "cp-parity", "Compare training steps under several splits of each sequence, in f64 on the CPU");
  command->add_option("recipe", args->recipe, "Recipe YAML file")->required();
  command->add_option("--cp", args->contexts, "Processes per sequence")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--steps", args->steps, "Optimizer steps")->capture_default_str();
  command->add_option("--tolerance", args->tolerance, "Largest relative difference that is equal")
      ->capture_default_str();
  command->add_option("--set", args->sets, "Override one key of the recipe")->type_name("KEY=VALUE");
  command->callback([args, &action] { action = [args] { return parity_command(*args); }; });
}

void add_bench(CLI::App& app, Action& action) {
  auto args = std::make_shared<BenchArguments>();
  CLI::App* command = app.add_subcommand("bench", "Measure this machine and what we make of it");
  command->add_option("what", args->groups,
                      "Groups: memory, gemm, attention, decode, step (default: all)");
  command->add_option("--device", args->device, "Where to compute")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command->add_option("--size", args->size, "full: fills a GPU; small: a minute on a CPU; toy: tests")
      ->check(CLI::IsMember({"auto", "toy", "small", "full"}))
      ->capture_default_str();
  command->add_option("--json", args->json, "Also write every row to this file");
  command->add_option("--recipe", args->recipes, "Recipes whose training step is measured");
  command->add_option("--set", args->sets, "Override one key of the recipes")
      ->type_name("KEY=VALUE");
  command->add_option("--threads", args->threads, "Threads (0: all cores)");
  command->callback([args, &action] { action = [args] { return bench_command(*args); }; });
}

/// What may have been meant by the first argument that no command knows; "" when there is none.
std::string suggestion(const CLI::App& app, const std::vector<std::string>& words) {
  const CLI::App* at = &app;
  std::string path = app.get_name();
  for (const std::string& argument : words) {
    if (argument == "--") break;
    std::vector<std::string> names;
    if (argument.starts_with("--")) {
      const std::string name = argument.substr(0, argument.find('='));
      if (at->get_option_no_throw(name) != nullptr) continue;
      for (const CLI::Option* option : at->get_options())
        for (const std::string& known : option->get_lnames()) names.push_back("--" + known);
      return fmt::format("unknown option '{}' of '{}'{}", name, path, did_you_mean(name, names));
    }
    const auto commands = at->get_subcommands([](const CLI::App*) { return true; });
    if (commands.empty() || argument.starts_with("-")) continue;
    const CLI::App* chosen = nullptr;
    for (const CLI::App* command : commands) {
      names.push_back(command->get_name());
      if (command->get_name() == argument) chosen = command;
    }
    if (chosen == nullptr)
      return fmt::format("unknown command '{}' of '{}'{}", argument, path,
                         did_you_mean(argument, names));
    at = chosen;
    path += " " + argument;
  }
  return "";
}

}  // namespace

int run_app(int argc, char** argv) {
  CLI::App app{"Longhand trains long-context language models from one YAML recipe.", "longhand"};
  app.footer(kFooter);
  app.require_subcommand(1);
  app.set_version_flag("--version", "longhand " + program_version());
  app.set_help_all_flag("--help-all", "Help of every subcommand");
  Action action;
  std::vector<std::string> words(argv + 1, argv + argc), program;
  add_launch(app, action, program);
  add_train(app, action);
  add_eval(app, action);
  add_generate(app, action);
  add_data(app, action);
  add_recipe(app, action);
  add_parity(app, action);
  add_bench(app, action);
  app.add_subcommand("doctor", "What this machine has, and what that enables")->callback([&action] {
    action = doctor_command;
  });
  try {
    if (!words.empty() && words[0] == "launch") {
      const LaunchWords split =
          split_launch_words(*app.get_subcommand("launch"), {words.begin() + 1, words.end()});
      words = {"launch"};
      words.insert(words.end(), split.own.begin(), split.own.end());
      program = split.program;
    }
    app.parse(std::vector<std::string>(words.rbegin(), words.rend()));  // CLI11 takes the last first
    return action();
  } catch (const CLI::ParseError& error) {
    if (const std::string hint = suggestion(app, words);
        error.get_exit_code() != 0 && !hint.empty()) {
      return report_failure(ConfigError(fmt::format("{}; see {} --help", hint, app.get_name())));
    }
    const int code = app.exit(error);
    return code == 0 ? kExitOk : kExitUsage;
  } catch (const std::exception& error) {
    return report_failure(error);
  }
}

}  // namespace lh
