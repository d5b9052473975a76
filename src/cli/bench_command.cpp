// `longhand bench`: resolves what was asked for into a bench::Setup and runs the groups.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "bench/groups.h"
#include "cli/app.h"
#include "cli/commands.h"
#include "config/load.h"
#include "runtime/cpu_info.h"
#include "runtime/gpu.h"
#include "train/run_state.h"

namespace lh {
namespace {

std::vector<bench::Group> chosen_groups(const std::vector<std::string>& names) {
  const auto all = bench::groups();
  std::vector<std::string> known;
  std::string list;
  for (const bench::Group& group : all) {
    known.push_back(group.name);
    list += (list.empty() ? "" : ", ") + known.back();
  }
  for (const std::string& name : names)
    if (std::find(known.begin(), known.end(), name) == known.end())
      fail<ConfigError>("bench: expected groups out of {}, got '{}'{}", list, name,
                        did_you_mean(name, known));
  std::vector<bench::Group> chosen;
  for (const bench::Group& group : all)
    if (names.empty() || std::find(names.begin(), names.end(), group.name) != names.end())
      chosen.push_back(group);
  return chosen;
}

bench::Scale scale_of(const std::string& size, Device device) {
  if (size == "toy") return bench::Scale::kToy;
  if (size == "small") return bench::Scale::kSmall;
  if (size == "full") return bench::Scale::kFull;
  if (device.is_cpu()) return bench::Scale::kSmall;
  if constexpr (kWithCuda) {
    if (gpu::device_info(device).emulated) return bench::Scale::kToy;
  }
  return bench::Scale::kFull;
}

std::vector<std::string> default_recipes(bench::Scale scale) {
  switch (scale) {
    case bench::Scale::kToy: return {"recipes/smoke/smoke_cpu.yaml"};
    case bench::Scale::kSmall: return {"recipes/pretrain/quickstart_cpu.yaml"};
    default: return {"recipes/pretrain/llama_124m.yaml", "recipes/pretrain/qwen3_0.6b.yaml"};
  }
}

/// The recipe with a vocabulary size, which normally comes from a tokenizer: without its file, one
/// of the usual size.
Recipe recipe_to_time(const std::string& path, const std::vector<std::string>& sets) {
  if (!std::filesystem::exists(path))
    fail<ConfigError>("bench: there is no recipe {}: run in the repository, or name one with "
                      "--recipe", path);
  Recipe recipe = load_recipe(path, sets);
  if (recipe.model.vocab_size == 0) {
    const std::string& tokenizer = recipe.data.tokenizer;
    if (tokenizer == "bytes" || std::filesystem::exists(tokenizer))
      recipe.model = resolve_model(recipe, *make_tokenizer(tokenizer));
    else
      recipe.model.vocab_size = kDefaultVocabulary;
  }
  return recipe;
}

std::string device_text(Device device) {
  if constexpr (kWithCuda) {
    if (!device.is_cpu()) return gpu::device_info(device).name;
  }
  return fmt::format("{}, {} cores, {}", cpu_info().model, cpu_info().logical_cores,
                     simd_level_name(cpu_info().simd));
}

std::string command_text(const BenchArguments& arguments) {
  std::string text = "longhand bench";
  for (const std::string& group : arguments.groups) text += " " + group;
  if (arguments.device != "auto") text += " --device " + arguments.device;
  if (arguments.size != "auto") text += " --size " + arguments.size;
  for (const std::string& recipe : arguments.recipes) text += " --recipe " + recipe;
  for (const std::string& set : arguments.sets) text += " --set " + set;
  return text;
}

}  // namespace

int bench_command(const BenchArguments& arguments) {
  const std::vector<bench::Group> groups = chosen_groups(arguments.groups);
  use_threads(arguments.threads);
  bench::Setup setup;
  setup.device = resolve_device(arguments.device);
  setup.dtype = resolve_compute(PrecisionConfig{}, setup.device);
  setup.scale = scale_of(arguments.size, setup.device);
  const bool steps = std::any_of(groups.begin(), groups.end(), [](const bench::Group& group) {
    return std::string_view(group.name) == "step";
  });
  if (steps) {
    const auto paths =
        arguments.recipes.empty() ? default_recipes(setup.scale) : arguments.recipes;
    for (const std::string& path : paths)
      setup.recipes.push_back(recipe_to_time(path, arguments.sets));
  }
  // A file that can't be written is known before the minutes are spent.
  if (!arguments.json.empty()) write_file_atomically(arguments.json, "");
  bench::Report report(device_text(setup.device), command_text(arguments));
  for (const bench::Group& group : groups) {
    group.run(setup, report);
    if (!arguments.json.empty()) report.write_json(arguments.json);
  }
  return kExitOk;
}

}  // namespace lh
