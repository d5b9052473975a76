// Which rule each parameter follows: defaults by kind, exceptions by name pattern.
#pragma once

#include <string_view>
#include <vector>

#include "config/recipe.h"
#include "nn/parameter.h"
#include "optim/shards.h"

namespace lh {

struct ParamRule {
  Parameter* parameter = nullptr;
  double lr_multiplier = 1;
  double weight_decay = 0;
  bool frozen = false;  // never updated: no gradient, no state
  bool muon = false;  // else AdamW
};

/// A parameter as one of its owners sees it.
struct OwnedParam {
  ParamRule rule;
  size_t index = 0;  // in the store
  ShardPart part;
};

/// One rule per parameter, in the store's order. Norms and biases have no weight decay unless a
/// group says so; with kind muon, hidden matrices go to Muon and the rest to AdamW. ConfigError for
/// a pattern that matches no parameter.
std::vector<ParamRule> resolve_param_groups(const OptimConfig& config, const ParameterStore& store);

/// Shell-style match of the whole name: * any run of characters, ? any one.
bool glob_match(std::string_view pattern, std::string_view name);

}  // namespace lh
