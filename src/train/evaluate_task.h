// The answers of a task, compared with what a model says.
#pragma once

#include <functional>
#include <optional>

#include "train/evaluate.h"

namespace lh {

/// Every example of `batches`, `sequences` sequences at a time; nullopt when `stop` said so.
std::optional<TaskResult> evaluate_task(const Decoder& model, const TaskBatches& batches,
                                        int64_t sequences, const std::function<bool()>& stop,
                                        const std::function<void(double)>& progress);

}  // namespace lh
