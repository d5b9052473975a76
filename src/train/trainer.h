// One training run, from a recipe to a trained checkpoint.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "config/recipe.h"
#include "train/evaluate.h"
#include "train/metrics.h"
#include "train/team.h"

namespace lh {

/// What a front end hears of a run. Any may be empty.
struct TrainEvents {
  std::function<void(const StepMetrics&)> on_step;  // every step, logged or not
  std::function<void(const StepMetrics&)> on_log;   // every log.every_steps
  std::function<void(int64_t step, const EvalResult&)> on_eval;
  std::function<void(int64_t step, const std::string& text)> on_sample;
  std::function<void(const std::string& phase, double share)> on_phase;  // saving, evaluating
};

enum class TrainEnd {
  kDone,     // all steps made
  kStopped,  // SIGTERM or SIGINT: saved, to be resumed
};

struct TrainSummary {
  TrainEnd end = TrainEnd::kDone;
  int64_t step = 0;
  EvalResult last_eval;  // targets == 0 when there was none
  std::filesystem::path checkpoint;  // the last one written
};

/// Runs the recipe. `resume`: go on from the newest good checkpoint of the run's folder, if any.
/// Without it a folder that already holds checkpoints is refused, so that nothing is overwritten.
/// All processes of the team call it. Throws ConfigError, IoError, CommError, or NonFiniteError after writing a
/// replay bundle.
TrainSummary train(const Recipe& recipe, bool resume, const TrainEvents& events, const Team& team);

/// Runs the step of a replay bundle again (written when a loss or gradient was not finite) and
/// reports op by op. Returns true when the bad value appeared again.
bool replay(const std::filesystem::path& bundle, const std::function<void(const std::string&)>& out);

}  // namespace lh
