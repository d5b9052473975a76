// The answers of a task, compared with what a model says.
#pragma once

#include <functional>
#include <optional>

#include "train/evaluate.h"

namespace lh {

/// Every example of `batches`, `sequences` sequences at a time; nullopt when `stop` said so. Mixers add to `report`
/// when there is one.
std::optional<TaskResult> evaluate_task(const Decoder& model, const TaskBatches& batches,
                                        int64_t sequences, const std::function<bool()>& stop,
                                        const std::function<void(double)>& progress,
                                        const GatePhase& gates = {},
                                        MixerReport* report = nullptr);

}  // namespace lh
