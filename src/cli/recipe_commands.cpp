// longhand recipe explain, check; longhand doctor.
#include <fmt/format.h>

#include "base/text.h"
#include "cli/commands.h"
#include "cli/doctor.h"
#include "config/load.h"

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

int doctor_command() {
  fmt::print("{}", doctor_report());
  return 0;
}

}  // namespace lh
