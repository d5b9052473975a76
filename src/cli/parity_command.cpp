// longhand cp-parity: the table of differences, and the verdict as exit code.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/math.h"
#include "cli/app.h"
#include "cli/commands.h"
#include "config/load.h"
#include "train/context_parity.h"

namespace lh {

int parity_command(const ParityArguments& arguments) {
  if (arguments.steps < 1) fail<ConfigError>("--steps: expected at least 1, got {}", arguments.steps);
  if (!(arguments.tolerance > 0)) fail<ConfigError>("--tolerance: expected above 0, got {}", arguments.tolerance);
  const Recipe recipe = load_recipe(arguments.recipe, arguments.sets);
  for (const int context : arguments.contexts) {  // what does not divide is said of the recipe, at once
    std::vector<std::string> sets = arguments.sets;
    sets.push_back(fmt::format("parallel.context={}", std::max(context, 1)));
    load_recipe(arguments.recipe, sets);
  }
  double largest = 0;
  bool started = false;
  context_parity(recipe, arguments.contexts, arguments.steps, [&](const ContextParity& row) {
    if (!std::exchange(started, true))  // after the arguments have proved good
      fmt::print("{:>3} {:>5} {:>14} {:>14} {:>11} {:>11} {:>11}  {}\n", "cp", "step", "loss", "grad norm",
                 "d loss", "d norm", "d gradient", "of parameter");
    fmt::print("{:>3} {:>5} {:>14.10f} {:>14.10f} {:>11.2e} {:>11.2e} {:>11.2e}  {}\n", row.context,
               row.step, row.loss, row.grad_norm, row.loss_error, row.norm_error, row.worst_error,
               row.worst_parameter);
    std::fflush(stdout);
    largest = larger_or_nan(largest, row.largest());
  });
  const bool same = largest <= arguments.tolerance;
  fmt::print("{}: the largest relative difference is {:.2e}, {} {:.2e}\n", same ? "equal" : "DIFFERENT",
             largest, same ? "at most" : "above", arguments.tolerance);
  return same ? kExitOk : kExitError;
}

}  // namespace lh
