// longhand recipe explain, check; longhand doctor.
#include <fmt/format.h>

#include "base/text.h"
#include "cli/commands.h"
#include "cli/doctor.h"
#include "config/load.h"
#include "train/plan.h"

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

int recipe_plan_command(const PlanArguments& arguments) {
  const Recipe recipe = load_recipe(arguments.recipe, arguments.sets);
  if (arguments.world < 1)
    throw ConfigError(fmt::format("--world: expected at least 1, got {}", arguments.world));
  const RecipePlan plan =
      plan_recipe(recipe, static_cast<int>(arguments.world), 0,
                  arguments.compute == "bf16" ? DType::kBF16 : DType::kF32, arguments.vocabulary);
  fmt::print("{} parameters; {} processes: {} data groups of {}; {} micro-batches each\n",
             format_count(static_cast<double>(plan.parameters)), plan.processes, plan.data,
             plan.context, plan.micro_batches);
  fmt::print("{}\n", plan.memory.table());
  const double compute_seconds =
      plan.flops / static_cast<double>(plan.processes) / (arguments.peak_tflops * 1e12);
  fmt::print("arithmetic    {:.3g} FLOP a step and process: {:.3g} s at {} TFLOP/s\n",
             plan.flops / static_cast<double>(plan.processes), compute_seconds,
             arguments.peak_tflops);
  double seconds = compute_seconds;
  const auto line = [&](const char* what, int64_t bytes) {
    if (bytes == 0) return;
    const double time = static_cast<double>(bytes) / (arguments.link_gigabytes * 1e9);
    seconds += time;
    fmt::print("{:<28} {:>10} sent: {:.3g} s at {} GB/s\n", what,
               format_bytes(static_cast<double>(bytes)), time, arguments.link_gigabytes);
  };
  line("gradients, all-reduce", plan.world.all_reduce);
  line("gradients, reduce-scatter", plan.world.reduce_scatter);
  line("parameters, all-gather", plan.world.all_gather);
  line("context, all-to-all", plan.context_group.all_to_all);
  fmt::print("{:.0f} % of a step is arithmetic when nothing overlaps\n",
             100 * compute_seconds / seconds);
  return 0;
}

int doctor_command() {
  fmt::print("{}", doctor_report());
  return 0;
}

}  // namespace lh
