#include "config/recipe.h"

#include <algorithm>
#include <filesystem>

#include "config/number.h"

namespace lh {

int64_t GateScheduleConfig::resolved_soft_steps(int64_t steps) const {
  return soft_steps > 0 ? soft_steps : steps - steps / 4;
}

int64_t GateScheduleConfig::resolved_anneal_steps(int64_t steps) const {
  if (anneal_steps > 0) return anneal_steps;
  if (kind == "bernoulli") return 0;  // drawn gates are hard already
  return std::min<int64_t>(500, (steps - resolved_soft_steps(steps)) / 5);
}
namespace {

std::string below(const std::string& folder, const std::string& path) {
  return (std::filesystem::path(folder) / path).string();  // an absolute path stays as it is
}

}  // namespace

std::optional<int64_t> integers_vocab(std::string_view tokenizer) {
  constexpr std::string_view kPrefix = "integers:";
  int64_t vocab = 0;
  std::string why;
  if (!tokenizer.starts_with(kPrefix) ||
      !parse_integer(std::string(tokenizer.substr(kPrefix.size())), vocab, why) || vocab < 2 ||
      vocab > int64_t{1} << 30)
    return std::nullopt;
  return vocab;
}

int64_t MuonConfig::resolved_steps() const {
  return newton_schulz_steps > 0 ? newton_schulz_steps : newton_schulz == "keller" ? 5 : 12;
}

std::string Recipe::run_folder() const {
  return run.out_dir.empty() ? below("runs", run.name) : run.out_dir;
}

std::string Recipe::checkpoint_folder() const {
  return below(run_folder(), checkpoint.folder);
}

std::string Recipe::metrics_path() const {
  return below(run_folder(), log.metrics_file);
}

int64_t Recipe::micro_batch_tokens() const {
  return precision.micro_batch_tokens > 0 ? precision.micro_batch_tokens : schedule.batch_tokens;
}

int64_t Recipe::accumulation_steps() const {
  return schedule.batch_tokens / micro_batch_tokens();
}

}  // namespace lh
