// longhand train: runs a recipe with a live display, or plain lines in a log.
#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "base/text.h"
#include "cli/app.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/version.h"
#include "config/load.h"
#include "dist/peers.h"
#include "launch/process_context.h"
#include "train/signals.h"
#include "train/team.h"
#include "train/trainer.h"

namespace lh {
namespace {

void print_line(ProgressLine& progress, const std::string& text) {
  progress.clear();
  fmt::print("{}\n", text);
  std::fflush(stdout);
}

TrainEvents events_of(ProgressLine& progress) {
  TrainEvents events;
  events.on_step = [&progress](const StepMetrics& m) {
    progress.update(static_cast<double>(m.step) / static_cast<double>(m.steps), m.console_line());
  };
  events.on_log = [&progress](const StepMetrics& m) {
    // On a terminal the live line shows every step; keeping ten of them is enough history.
    const int64_t every = std::max<int64_t>(1, m.steps / 10);
    if (!progress.live() || m.step % every == 0) print_line(progress, m.console_line());
  };
  events.on_eval = [&progress](int64_t step, const EvalResult& result) {
    if (result.text_bytes > 0)
      print_line(progress,
                 fmt::format("eval at step {}: loss {:.4f}, perplexity {:.2f}, {:.4f} bits per byte "
                             "({} tokens in {})",
                             step, result.loss, result.perplexity(), result.bits_per_byte,
                             result.targets, format_duration(result.seconds)));
    if (const MixerFigure& kept = result.mixers.figure(kKvDensity); kept.seen())
      print_line(progress, fmt::format("  hard gates keep {:.1f} % of the keys outside the window{}",
                                       100 * kept.total().value(),
                                       result.soft_loss ? fmt::format("; loss with soft ones {:.4f}", *result.soft_loss)
                                                        : ""));
    for (const TaskResult& task : result.tasks)
      print_line(progress, fmt::format("eval at step {}: {}", step, task.line()));
  };
  events.on_sample = [&progress](int64_t step, const std::string& text) {
    print_line(progress, fmt::format("sample at step {}:\n  {}", step, text));
  };
  events.on_phase = [&progress](const std::string& phase, double share) { progress.update(share, phase); };
  return events;
}

int train_team(const TrainArguments& arguments, const Recipe& recipe, const Team& team) {
  ProgressLine progress;
  const TrainEvents events = events_of(progress);
  // A launcher or scheduler that starts the job again gives the same command line again.
  const bool resume = arguments.resume || process_context(current_environment()).restarted;
  const TrainSummary summary = train(recipe, team.any(resume, "resume"), events, team);
  progress.clear();
  if (summary.end == TrainEnd::kStopped) {
    if (summary.checkpoint.empty()) return kExitStopped;  // another process saved, and says so
    const std::string by = stop_signal() != 0 ? fmt::format("signal {}", stop_signal()) : "a signal to another process";
    log_warn("stopped by {} at step {}; saved to {}. Go on with: longhand train {} --resume", by, summary.step,
             summary.checkpoint.string(), arguments.recipe);
    return kExitStopped;
  }
  if (!summary.checkpoint.empty())  // of several processes one saves
    print_line(progress, fmt::format("done: {} steps, checkpoint {}", summary.step,
                                     summary.checkpoint.string()));
  return kExitOk;
}

}  // namespace

int train_command(const TrainArguments& arguments) {
  if (!arguments.replay.empty()) {
    const bool again = replay(arguments.replay,
                              [](const std::string& line) { fmt::print("{}\n", line); });
    return again ? kExitError : kExitOk;
  }
  // Before anything else: a signal in any phase of a run ends it in the same way.
  install_stop_signals();
  const std::shared_ptr<Peers> peers = peers_of_environment();
  if (peers->rank() != 0) set_log_level(std::max(log_level(), LogLevel::kWarn));  // only the leader prints
  std::unique_ptr<Team> team;  // outlives what fails: the others hear the reason before the connections break
  try {
    const Recipe recipe = load_recipe(arguments.recipe, arguments.sets);
    team = make_team(peers, recipe, program_version());
    return train_team(arguments, recipe, *team);
  } catch (const std::exception& error) {
    const bool ours = dynamic_cast<const PeerFailure*>(&error) == nullptr;
    const bool tells = ours && peers->tells(error.what(), exit_code_of(error));
    if (tells && exit_code_of(error) == kExitStopped) log_warn("signal {}: {}", stop_signal(), error.what());
    const int code = tells ? report_failure(error) : report_consequence(error);
    team.reset();
    peers->farewell();
    return code;
  }
}

}  // namespace lh
