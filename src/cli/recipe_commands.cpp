// longhand recipe explain, check; longhand doctor.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/text.h"
#include "cli/commands.h"
#include "cli/doctor.h"
#include "config/load.h"
#include "train/gate_schedule.h"
#include "train/plan.h"
#include "train/run_state.h"

namespace lh {

int recipe_explain_command(const std::string& key) {
  fmt::print("{}", explain_recipe(key));
  return 0;
}

int recipe_check_command(const std::string& path, const std::vector<std::string>& sets,
                         bool dump) {
  const Recipe recipe = load_recipe(path, sets);
  if (dump) {
    fmt::print("{}", dump_recipe(recipe));
    return 0;
  }
  const double tokens = static_cast<double>(recipe.schedule.steps) *
                        static_cast<double>(recipe.schedule.batch_tokens);
  fmt::print("{}: valid\n", path);
  if (recipe.model.vocab_size > 0)
    fmt::print("  {} parameters", format_count(static_cast<double>(recipe.model.num_parameters())));
  else
    fmt::print("  {} parameters and an embedding for the tokenizer's vocabulary",
               format_count(static_cast<double>(recipe.model.num_parameters(0))));
  fmt::print(", {} steps of {} tokens: {} tokens in all\n", recipe.schedule.steps,
             recipe.schedule.batch_tokens, format_count(tokens));
  for (const std::string& warning : recipe_warnings(recipe)) fmt::print("  warning: {}\n", warning);
  return 0;
}

namespace {

std::string name_of(const PlannedTraffic& sent) {
  const std::string what = sent.mixer.empty() ? sent.what : fmt::format("{}: {}", sent.mixer, sent.what);
  return sent.backward ? what + ", gradients" : what;
}

/// What a step of one process computes and sends, and the time of each if nothing overlaps.
void print_step(const RecipePlan& plan, const PlanArguments& arguments) {
  struct Row {
    std::string what, collective, layers, amount;
    double seconds;
  };
  const double flops = plan.flops / static_cast<double>(plan.processes);
  std::vector<Row> rows = {{"arithmetic", "", "", format_count(flops) + " FLOP",
                            flops / (arguments.peak_tflops * 1e12 * arguments.efficiency)}};
  for (const PlannedTraffic& sent : plan.sent) {
    std::string collective = sent.collective;
    std::replace(collective.begin(), collective.end(), '_', '-');
    rows.push_back({name_of(sent), collective, sent.layers > 0 ? fmt::format("{}", sent.layers) : "",
                    format_bytes(static_cast<double>(sent.bytes)),
                    static_cast<double>(sent.bytes) / (arguments.link_gigabytes * 1e9)});
  }
  double total = 0;
  for (const Row& row : rows) total += row.seconds;
  fmt::print("{:<38} {:<14} {:>6} {:>12} {:>9} {:>7}\n", "a step of this process", "sent by", "layers",
             "amount", "seconds", "share");
  for (const Row& row : rows)
    fmt::print("{:<38} {:<14} {:>6} {:>12} {:>9.3g} {:>5.1f} %\n", row.what, row.collective, row.layers,
               row.amount, row.seconds, 100 * row.seconds / total);
  fmt::print("{:<38} {:<14} {:>6} {:>12} {:>9.3g}\n\n", "together", "", "", "", total);
}

void print_assumptions(const Recipe& recipe, const RecipePlan& plan, const PlanArguments& arguments, bool cpu) {
  fmt::print("assumed\n");
  fmt::print("  {:g} TFLOP/s of a process (--peak-tflops), {:g} of it reached (--efficiency)\n",
             arguments.peak_tflops, arguments.efficiency);
  fmt::print("  FLOP, the mean of all processes: what recompute repeats isn't counted\n");
  if (plan.processes > 1)
    fmt::print("  {:g} GB/s sent by a process (--link-gigabytes), nothing overlaps\n",
               arguments.link_gigabytes);
  fmt::print("  every sequence is one document, the most that a step can be\n");
  if (gate_phases(recipe).size() > 1)
    fmt::print("  memory and traffic of the phase of the gates (schedule.gates) that has most of each\n");
  if (cpu) return;
  if (kWithCuda)
    fmt::print("  memory with the scratch of this build's kernels, without CUDA's context and cuDNN's\n");
  else
    fmt::print("  memory without the kernels' scratch, a few %: this build has no CUDA backend to ask\n");
}

}  // namespace

constexpr int64_t kMostProcesses = 100000;

/// Of the recipe's tokenizer, if it needs no file.
int64_t vocabulary_of(const Recipe& recipe) {
  const std::string& name = recipe.data.tokenizer;
  const bool known = name == "bytes" || name.starts_with("integers:");
  return known ? make_tokenizer(name)->vocab_size() : kDefaultVocabulary;
}

int recipe_plan_command(const PlanArguments& arguments) {
  const Recipe recipe = load_recipe(arguments.recipe, arguments.sets);
  if (arguments.world < 1 || arguments.world > kMostProcesses)
    throw ConfigError(fmt::format("--world: expected 1 to {}, got {}", kMostProcesses, arguments.world));
  if (arguments.vocabulary && (*arguments.vocabulary < 1 || *arguments.vocabulary > INT32_MAX))
    throw ConfigError(fmt::format("--vocabulary: expected 1 to {}, got {}", INT32_MAX, *arguments.vocabulary));
  if (arguments.rank < 0 || arguments.rank >= arguments.world)
    throw ConfigError(fmt::format("--rank: expected 0 to {}, got {}", arguments.world - 1, arguments.rank));
  for (const auto& [value, name] : {std::pair{arguments.peak_tflops, "--peak-tflops"},
                                    {arguments.link_gigabytes, "--link-gigabytes"},
                                    {arguments.efficiency, "--efficiency"}})
    if (!(value > 0)) throw ConfigError(fmt::format("{}: expected above 0, got {}", name, value));
  const bool cpu = arguments.device == "cpu" ||
                   (arguments.device == "auto" && recipe.run.device == "cpu");
  if (cpu) use_threads(recipe.run.threads);
  const bool bf16 = arguments.compute == "bf16" ||
                    (arguments.compute == "auto" && recipe.precision.compute != "fp32");
  const auto plan_of = [&](const Recipe& planned) {
    return plan_recipe(planned, static_cast<int>(arguments.world), static_cast<int>(arguments.rank),
                       cpu ? kMetaCpuDevice : kMetaCudaDevice, bf16 ? DType::kBF16 : DType::kF32,
                       arguments.vocabulary.value_or(vocabulary_of(recipe)));
  };
  const RecipePlan plan = plan_of(recipe);
  fmt::print("{} parameters, {} on {}\n", format_count(static_cast<double>(plan.parameters)),
             bf16 ? "bf16" : "fp32", cpu ? "cpu" : "cuda");
  fmt::print("{} processes: {} data groups of {} (parallel.context), {} micro-batches each; rank {} is planned\n\n",
             plan.processes, plan.data, plan.context, plan.micro_batches, arguments.rank);
  fmt::print("{}\n", plan.memory.table());
  if (plan.processes > 1 && recipe.parallel.overlap) {
    Recipe late = recipe;
    late.parallel.overlap = false;
    fmt::print("at peak if all gradients are summed after backward: {}\n",
               format_bytes(static_cast<double>(plan_of(late).memory.total_peak)));
  }
  fmt::print("\n");
  print_step(plan, arguments);
  print_assumptions(recipe, plan, arguments, cpu);
  return 0;
}

int doctor_command() {
  fmt::print("{}", doctor_report());
  return 0;
}

}  // namespace lh
