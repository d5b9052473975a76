#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace lh {

double learning_rate_factor(const ScheduleConfig& schedule, int64_t step) {
  if (step < schedule.warmup_steps)
    return static_cast<double>(step + 1) / static_cast<double>(schedule.warmup_steps);
  if (schedule.kind == "constant") return 1;

  const bool cosine = schedule.kind == "cosine";
  const int64_t length = cosine ? schedule.steps - schedule.warmup_steps : schedule.decay_steps;
  // Updates made of the decay, this one counted: 1 at its first, `length` at the run's last.
  const int64_t made = step - (schedule.steps - length) + 1;
  if (made <= 0 || length <= 0) return 1;
  const double t = std::min(1.0, static_cast<double>(made) / static_cast<double>(length));
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

}  // namespace lh
