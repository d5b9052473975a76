// Whether a recipe trains the same under every split of its sequences over processes: the same steps with 1, 2, 4
// ... processes per sequence, in f64, compared number by number.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "config/recipe.h"

namespace lh {

struct ContextParity {
  int context = 1;
  int64_t step = 0;
  double loss = 0, grad_norm = 0;
  double loss_error = 0, norm_error = 0;  // relative to one process
  /// The parameter whose gradient differs most, as a share of that gradient's largest entry.
  std::string worst_parameter;
  double worst_error = 0;

  double largest() const;
};

/// Runs `steps` steps for every entry of `contexts` with threads of this process as ranks, over real connections,
/// and for 1, which the others are compared with. Every step uses the recipe's data, optimizer and schedule. ConfigError when
/// a count does not fit the recipe.
std::vector<ContextParity> context_parity(const Recipe& recipe, const std::vector<int>& contexts,
                                          int64_t steps,
                                          const std::function<void(const ContextParity&)>& on_row);

}  // namespace lh
