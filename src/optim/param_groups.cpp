#include "optim/param_groups.h"

#include <string>

#include "base/text.h"

namespace lh {

bool glob_match(std::string_view pattern, std::string_view name) {
  // Greedy with one point of return: a later * makes earlier ones irrelevant.
  size_t p = 0, n = 0, star = std::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n]) && pattern[p] != '*') {
      ++p;
      ++n;
    } else if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

std::vector<ParamRule> resolve_param_groups(const OptimConfig& config,
                                            const ParameterStore& store) {
  std::vector<ParamRule> rules;
  std::vector<std::string> names;
  for (const auto& parameter : store.all()) {
    ParamRule rule;
    rule.parameter = parameter.get();
    const bool decays =
        parameter->kind != ParameterKind::kNorm && parameter->kind != ParameterKind::kBias;
    rule.weight_decay = decays ? config.weight_decay : 0;
    rule.muon = config.kind == "muon" && parameter->kind == ParameterKind::kMatrix;
    rules.push_back(rule);
    names.push_back(parameter->name);
  }
  for (size_t g = 0; g < config.groups.size(); ++g) {
    const ParamGroupConfig& group = config.groups[g];
    bool matched = false;
    for (ParamRule& rule : rules) {
      if (!glob_match(group.pattern, rule.parameter->name)) continue;
      matched = true;
      if (group.lr_multiplier) rule.lr_multiplier = *group.lr_multiplier;
      if (group.weight_decay) rule.weight_decay = *group.weight_decay;
      if (group.freeze) rule.frozen = *group.freeze;
    }
    if (!matched)
      fail<ConfigError>("optim.groups[{}].pattern: '{}' matches no parameter{}; names look like '{}'",
                        g, group.pattern, did_you_mean(group.pattern, names),
                        names.empty() ? "" : names.back());
  }
  return rules;
}

}  // namespace lh
