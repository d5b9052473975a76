// longhand recipe explain, check; longhand doctor.
#include <fmt/format.h>

#include <utility>

#include "base/text.h"
#include "cli/commands.h"
#include "cli/doctor.h"
#include "config/load.h"
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

/// What a step of one process computes and sends, and the time of each if nothing overlaps.
void print_step(const RecipePlan& plan, const PlanArguments& arguments) {
  struct Row {
    std::string what, amount;
    double seconds;
  };
  const double flops = plan.flops / static_cast<double>(plan.processes);
  std::vector<Row> rows = {{"arithmetic", fmt::format("{:.3g} FLOP", flops),
                            flops / (arguments.peak_tflops * 1e12 * arguments.efficiency)}};
  const auto add = [&](const std::string& what, int64_t bytes) {
    if (bytes > 0)
      rows.push_back({what, format_bytes(static_cast<double>(bytes)) + " sent",
                      static_cast<double>(bytes) / (arguments.link_gigabytes * 1e9)});
  };
  const auto add_group = [&](const std::string& group, const CommTraffic& traffic) {
    add(group + ", all-reduce", traffic.all_reduce);
    add(group + ", reduce-scatter", traffic.reduce_scatter);
    add(group + ", all-gather", traffic.all_gather);
    add(group + ", all-to-all", traffic.all_to_all);
    add(group + ", point to point", traffic.send);
    add(group + ", broadcast", traffic.broadcast);
  };
  add_group("all processes", plan.world);
  add_group("context group", plan.context_group);
  double total = 0;
  for (const Row& row : rows) total += row.seconds;
  fmt::print("{:<30} {:>16} {:>10} {:>7}\n", "a step of one process", "amount", "seconds", "share");
  for (const Row& row : rows)
    fmt::print("{:<30} {:>16} {:>10.3g} {:>5.1f} %\n", row.what, row.amount, row.seconds,
               100 * row.seconds / total);
  fmt::print("{:<30} {:>16} {:>10.3g}\n\n", "together", "", total);
  fmt::print("Assumed: {} TFLOP/s of a process (--peak-tflops), {} of it reached (--efficiency), "
             "{} GB/s sent by a\nprocess (--link-gigabytes), nothing overlapping. FLOP are useful ones: "
             "what recompute repeats isn't counted.\n",
             arguments.peak_tflops, arguments.efficiency, arguments.link_gigabytes);
}

}  // namespace

int recipe_plan_command(const PlanArguments& arguments) {
  const Recipe recipe = load_recipe(arguments.recipe, arguments.sets);
  if (arguments.world < 1)
    throw ConfigError(fmt::format("--world: expected at least 1, got {}", arguments.world));
  for (const auto& [value, name] : {std::pair{arguments.peak_tflops, "--peak-tflops"},
                                    {arguments.link_gigabytes, "--link-gigabytes"},
                                    {arguments.efficiency, "--efficiency"}})
    if (!(value > 0)) throw ConfigError(fmt::format("{}: expected above 0, got {}", name, value));
  const bool cpu = arguments.device == "cpu" ||
                   (arguments.device == "auto" && recipe.run.device == "cpu");
  if (cpu) use_threads(recipe.run.threads);
  const bool bf16 = arguments.compute == "bf16" ||
                    (arguments.compute == "auto" && recipe.precision.compute != "fp32");
  const RecipePlan plan = plan_recipe(recipe, static_cast<int>(arguments.world), 0,
                                      cpu ? kMetaCpuDevice : kMetaDevice,
                                      bf16 ? DType::kBF16 : DType::kF32, arguments.vocabulary);
  fmt::print("{} parameters, {} on {}\n", format_count(static_cast<double>(plan.parameters)),
             bf16 ? "bf16" : "fp32", cpu ? "cpu" : "cuda");
  fmt::print("{} processes: {} data groups of {} (parallel.context), {} micro-batches each\n\n",
             plan.processes, plan.data, plan.context, plan.micro_batches);
  fmt::print("{}\n\n", plan.memory.table());
  print_step(plan, arguments);
  return 0;
}

int doctor_command() {
  fmt::print("{}", doctor_report());
  return 0;
}

}  // namespace lh
