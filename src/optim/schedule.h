// Schedules of the learning rate and of weight decay.
#pragma once

#include <cstdint>

#include "config/recipe.h"

namespace lh {

/// Share of the peak learning rate for the update after `step` completed steps (0 <= step < steps).
/// Warmup: (step + 1) / warmup_steps, so that the first update is not wasted and the peak is
/// reached at the last warmup step. Cosine and WSD reach final_lr_fraction at the last step.
double learning_rate_factor(const ScheduleConfig& schedule, int64_t step);

/// Share of the weight decay for the same update: 1, and over a WSD decay (1 - t)^weight_decay_power,
/// t from 0 where it begins to 1 at the last step (weight-decay annealing, arXiv 2605.29157).
double weight_decay_factor(const ScheduleConfig& schedule, int64_t step);

}  // namespace lh
