#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace lh {

namespace {

/// Where the update after `step` steps stands in a final decay of `length`: at most 0 before it,
/// 1 at the run's last.
double decay_progress(const ScheduleConfig& schedule, int64_t length, int64_t step) {
  // Updates made of the decay, this one counted: 1 at its first, `length` at the run's last.
  const int64_t made = step - (schedule.steps - length) + 1;
  if (made <= 0 || length <= 0) return 0;
  return std::min(1.0, static_cast<double>(made) / static_cast<double>(length));
}

}  // namespace

double learning_rate_factor(const ScheduleConfig& schedule, int64_t step) {
  if (step < schedule.warmup_steps)
    return static_cast<double>(step + 1) / static_cast<double>(schedule.warmup_steps);
  if (schedule.kind == "constant") return 1;

  const bool cosine = schedule.kind == "cosine";
  const int64_t length = cosine ? schedule.steps - schedule.warmup_steps : schedule.decay_steps;
  const double t = decay_progress(schedule, length, step);
  if (t == 0) return 1;
  const double floor = schedule.final_lr_fraction;
  if (cosine) return floor + (1 - floor) * 0.5 * (1 + std::cos(std::numbers::pi * t));
  if (schedule.decay_shape == "linear") return floor + (1 - floor) * (1 - t);
  if (schedule.decay_shape == "1-sqrt") return floor + (1 - floor) * (1 - std::sqrt(t));
  if (schedule.decay_shape == "exponential") {
    // A decay to zero has no exponential form; 1e-3 of the peak stands for it.
    return std::pow(std::max(floor, 1e-3), t);
  }
  fail<ConfigError>("schedule.decay_shape: unknown shape '{}'", schedule.decay_shape);
}

double weight_decay_factor(const ScheduleConfig& schedule, int64_t step) {
  if (schedule.kind != "wsd" || schedule.weight_decay_power == 0) return 1;
  return std::pow(1 - decay_progress(schedule, schedule.decay_steps, step),
                  schedule.weight_decay_power);
}

}  // namespace lh
