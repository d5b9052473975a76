#include "train/trainer.h"

#include <algorithm>
#include <cmath>
#include <deque>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "base/timer.h"
#include "checkpoint/checkpoint_folder.h"
#include "config/load.h"
#include "data/prefetcher.h"
#include "optim/schedule.h"
#include "train/gate_schedule.h"
#include "train/generate.h"
#include "train/initial_weights.h"
#include "train/machine_peak.h"
#include "train/replay.h"
#include "train/run_state.h"
#include "train/saved_run.h"
#include "train/signals.h"
#include "train/step.h"
#include "train/team.h"
#include "train/training_data.h"

namespace lh {
namespace fs = std::filesystem;
namespace {

/// Tokens per second over the last few steps, so that a pause shows and then fades.
class Throughput {
 public:
  void add(double tokens, double flops, double seconds) {
    window_.push_back({tokens, flops, seconds});
    if (window_.size() > 20) window_.pop_front();
  }
  double tokens_per_second() const { return sum(&Sample::tokens) / sum(&Sample::seconds); }
  double flops_per_second() const { return sum(&Sample::flops) / sum(&Sample::seconds); }

 private:
  struct Sample {
    double tokens, flops, seconds;
  };
  double sum(double Sample::* field) const {
    double total = 0;
    for (const Sample& sample : window_) total += sample.*field;
    return total;
  }
  std::deque<Sample> window_;
};

class Run {
 public:
  Run(const Recipe& recipe, bool resume, const TrainEvents& events, const Team& team)
      : recipe_(recipe),
        events_(events),
        device_(team.device()),
        team_(&team),
        tokenizer_(make_tokenizer(recipe.data.tokenizer)),
        train_data_(open_training_data(recipe, *tokenizer_)),
        valid_data_(open_valid_data(recipe, *tokenizer_)),
        compute_(resolve_compute(recipe.precision, device_)),
        model_(resolve_model(recipe, *tokenizer_), compute_,
               static_cast<uint64_t>(recipe.run.seed), device_),
        optimizer_(make_optimizer(recipe.optim, model_.parameters(), team_->shard_place())) {
    team_->must_agree(train_data_.content() + tokenizer_->digest(), "training data");
    share_ = team_->share(recipe_.schedule.batch_tokens / recipe_.data.seq_tokens,
                          recipe_.micro_batch_tokens() / recipe_.data.seq_tokens);
    start(resume);
    log_info("[model] {} parameters, {} layers, computing in {} on {}",
             format_count(static_cast<double>(model_.parameters().count())),
             model_.config().num_layers, dtype_name(compute_), device_.str());
    log_info("{}", memory_report(device_.kind).table());
    if (team_->leads()) warn();
    Tensor peak = Tensor::from(std::vector<double>{measure_matmul_peak(compute_, device_)}, {1});
    team_->sum(peak, "matrix product peak");
    peak_ = peak.item();
    reset_memory_peak(device_.kind);
  }

  /// What is allowed, but probably not meant.
  void warn() const {
    for (const std::string& warning : recipe_warnings(recipe_)) log_warn("[recipe] {}", warning);
    for (size_t i = 0; i < recipe_.data.train.size(); ++i) {
      const auto source = static_cast<int64_t>(i);
      if (const double passes = train_data_.epochs(source, 1); passes > 1)
        log_warn("[data] data.train.{} has {} tokens, which make its part of the {} tokens of a step {:.1f} times over",
                 i, train_data_.tokens(source), recipe_.schedule.batch_tokens, passes);
    }
  }

  /// Where to begin, and the leader's files.
  void start(bool resume) {
    const fs::path folder = recipe_.checkpoint_folder();
    if (!resume && team_->leads() && has_checkpoints(folder))
      fail<ConfigError>("{} already holds checkpoints: add --resume to go on from the newest, or "
                        "choose another run.name or run.out_dir",
                        folder.string());
    const auto loaded = resume ? resume_run(folder, parts()) : std::nullopt;
    if (loaded) {
      progress_ = *loaded;
      log_info("[resume] from step {} in {}", progress_.step, folder.string());
    } else {
      if (resume) log_info("[resume] no checkpoint in {}: starting anew", folder.string());
      load_initial_weights(recipe_, *tokenizer_, model_, team_);
    }
    if (team_->leads())
      metrics_ = std::make_unique<MetricsFile>(recipe_.metrics_path(), progress_.step);
  }

  TrainSummary run() {
    const int64_t steps = recipe_.schedule.steps;
    const int64_t micro_batches = share_.micro_batches();
    Prefetcher prefetcher(
        [&, micro_batches, steps](int64_t index) -> std::optional<Batch> {
          const int64_t step = index / micro_batches, micro = index % micro_batches;
          if (step >= steps) return std::nullopt;
          return train_data_.make_batch(step, share_.begin(micro), share_.size(micro));
        },
        progress_.step * micro_batches, std::max<int64_t>(1, recipe_.data.prefetch_batches));

    TrainSummary summary;
    int64_t saved_step = -1;
    // What is due after a step; false when a signal cut the evaluation short.
    const auto finish_step = [&] {
      if (due(recipe_.eval.every_steps) && !evaluate_now(summary)) return false;
      if (due(recipe_.eval.sample_every_steps)) sample_now();
      if (due(recipe_.checkpoint.every_steps)) {
        summary.checkpoint = save();
        saved_step = progress_.step;
      }
      return true;
    };
    // A step whose evaluation was cut short is finished first after resuming.
    const bool cut = progress_.step > 0 && due(recipe_.eval.every_steps) &&
                     progress_.evaluated_step != progress_.step;
    bool going = !cut || finish_step();
    while (going && progress_.step < steps)
      going = !stopped() && step_once(prefetcher, micro_batches) && finish_step();
    if (!going) summary.end = TrainEnd::kStopped;
    const bool done = summary.end == TrainEnd::kDone;
    // The final evaluation comes before the final save, so that "best" can be the last one.
    if (done && !valid_data_.empty() && progress_.evaluated_step != progress_.step &&
        !evaluate_now(summary))
      summary.end = TrainEnd::kStopped;
    if (done && recipe_.eval.sample_tokens > 0 && !stopped()) sample_now();
    if (saved_step != progress_.step) summary.checkpoint = save();
    summary.step = progress_.step;
    log_info("{}", memory_report(device_.kind).table());
    return summary;
  }

 private:
  RunParts parts() {
    return {recipe_, *tokenizer_, train_data_, model_, *optimizer_, team_};
  }

  bool due(int64_t every) const {
    return every > 0 && progress_.step % every == 0 && progress_.step < recipe_.schedule.steps;
  }

  /// A team learns of a signal in train_step and evaluate, together; alone it counts at once.
  bool stopped() const { return team_->alone() && stop_signal() != 0; }

  /// The next batch if no waiting is needed. What went wrong with it is thrown when it is asked for.
  static std::optional<Batch> batch_if_ready(Prefetcher& prefetcher) {
    Batch batch;
    try {
      if (prefetcher.next(batch, nullptr, std::chrono::milliseconds(0)) == Fetch::kReady)
        return batch;
    } catch (const std::exception&) {
    }
    return std::nullopt;
  }

  /// False when a signal came before the update.
  bool step_once(Prefetcher& prefetcher, int64_t micro_batches) {
    const Timer timer;
    const double waited_before = prefetcher.waited_seconds();
    StepContext context{.model = model_,
                        .optimizer = *optimizer_,
                        .recipe = recipe_,
                        .batch =
                            [&](int64_t) {
                              Batch batch;
                              // Alone, a signal ends the wait; a team finishes the step it began.
                              if (prefetcher.next(batch, team_->alone() ? &stop_requested()
                                                                        : nullptr) != Fetch::kReady)
                                throw StopRequested{};
                              return batch;
                            },
                        .micro_batches = micro_batches,
                        .valid_targets = train_data_.valid_targets(progress_.step),
                        .stop = [] { return stop_signal() != 0; },
                        .gates = gate_phase(recipe_, progress_.step),
                        .document_tokens = train_data_.document_tokens(progress_.step),
                        .next = [&] { return batch_if_ready(prefetcher); },
                        .state = &step_state_,
                        .team = team_};
    team_->set_step(progress_.step + 1);
    const double factor = learning_rate_factor(recipe_.schedule, progress_.step);
    optimizer_->set_weight_decay_factor(weight_decay_factor(recipe_.schedule, progress_.step));
    StepResult result;
    try {
      result = train_step(context, factor);
    } catch (const StopRequested&) {
      return false;
    }
    if (result.stopped) return false;
    if (!result.non_finite.empty()) report_non_finite(result);
    ++progress_.step;
    const double seconds = timer.seconds();
    throughput_.add(static_cast<double>(recipe_.schedule.batch_tokens), result.flops, seconds);

    StepMetrics metrics;
    metrics.step = progress_.step;
    metrics.steps = recipe_.schedule.steps;
    metrics.tokens = progress_.step * recipe_.schedule.batch_tokens;
    metrics.loss = result.loss;
    if (recipe_.schedule.gates.density_weight != 0 && context.gates.learns())
      metrics.density_loss = result.density_loss;
    metrics.grad_norm = result.grad_norm;
    metrics.learning_rate = recipe_.optim.learning_rate * factor;
    metrics.tokens_per_second = throughput_.tokens_per_second();
    metrics.peak_share = throughput_.flops_per_second() / peak_;
    metrics.data_wait_seconds = prefetcher.waited_seconds() - waited_before;
    metrics.memory_bytes = memory_report(device_.kind).total_peak;
    metrics.eta_seconds = static_cast<double>(metrics.steps - metrics.step) *
                          static_cast<double>(recipe_.schedule.batch_tokens) /
                          metrics.tokens_per_second;
    if (events_.on_step && team_->leads()) events_.on_step(metrics);
    if (progress_.step % recipe_.log.every_steps == 0 || progress_.step == metrics.steps) {
      if (metrics_ != nullptr) metrics_->write(metrics);
      if (events_.on_log && team_->leads()) events_.on_log(metrics);
    }
    return true;
  }

  /// False when a signal cut it short.
  bool evaluate_now(TrainSummary& summary) {
    if (valid_data_.empty()) return true;
    const int64_t sequences =
        std::max<int64_t>(1, recipe_.micro_batch_tokens() / recipe_.data.seq_tokens);
    const EvalResult result = evaluate(
        model_, valid_data_, sequences, [] { return stop_signal() != 0; },
        [&](double share) { phase("evaluating", share); }, team_);
    if (result.stopped) return false;
    summary.last_eval = result;
    progress_.evaluated_step = progress_.step;
    best_ = progress_.best_valid_loss == 0 || result.loss < progress_.best_valid_loss;
    if (best_) progress_.best_valid_loss = result.loss;
    if (metrics_ != nullptr) metrics_->write(progress_.step, result);
    if (events_.on_eval && team_->leads()) events_.on_eval(progress_.step, result);
    return true;
  }

  void sample_now() {
    if (!events_.on_sample || recipe_.eval.sample_tokens == 0 || !team_->leads()) return;
    team_->set_place("sampling");
    GenerateOptions options;
    options.max_tokens = recipe_.eval.sample_tokens;
    options.sampling = {.temperature = 0.8, .top_p = 0.95};
    options.seed = static_cast<uint64_t>(progress_.step);
    std::string text = recipe_.eval.prompt;
    generate(model_, *tokenizer_, recipe_.eval.prompt, options, [&](const std::string& piece) {
      text += piece;
      return stop_signal() == 0;
    });
    if (stop_signal() == 0) events_.on_sample(progress_.step, text);
  }

  fs::path save() {
    team_->set_place("checkpoint.save");
    phase("saving", -1);
    const bool best = best_ && progress_.evaluated_step == progress_.step;
    return save_run(recipe_.checkpoint_folder(), parts(), progress_, best);
  }

  [[noreturn]] void report_non_finite(const StepResult& result) {
    const fs::path bundle = write_replay_bundle(parts(), progress_, result);
    if (!team_->leads())  // the leader says where the bundle is
      throw PeerFailure(fmt::format("step {}: {} is not finite", progress_.step + 1, result.non_finite), 1);
    fail<NonFiniteError>(
        "step {}: {} is not finite; stopped before the update.\nThe step can be run again with: "
        "longhand train --replay {}",
        progress_.step + 1, result.non_finite, bundle.string());
  }

  void phase(const std::string& name, double share) {
    if (events_.on_phase && team_->leads()) events_.on_phase(name, share);
  }

  struct StopRequested {};

  const Recipe& recipe_;
  const TrainEvents& events_;
  Device device_;
  const Team* team_;
  SequenceShare share_;
  std::unique_ptr<Tokenizer> tokenizer_;
  TrainingBatches train_data_;
  ValidData valid_data_;
  DType compute_;
  Decoder model_;
  std::unique_ptr<Optimizer> optimizer_;
  StepState step_state_;
  std::unique_ptr<MetricsFile> metrics_;
  RunProgress progress_;
  Throughput throughput_;
  double peak_ = 0;
  bool best_ = false;
};

}  // namespace

TrainSummary train(const Recipe& recipe, bool resume, const TrainEvents& events, const Team& team) {
  use_threads(recipe.run.threads);
  return Run(recipe, resume, events, team).run();
}

}  // namespace lh
