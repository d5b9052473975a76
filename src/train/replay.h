// Bundles that a non-finite loss or gradient leaves behind: the state before the bad step, from
// which the step can be run again, op by op.
#pragma once

#include <filesystem>

#include "train/saved_run.h"
#include "train/step.h"

namespace lh {

/// Writes the bundle into <run folder>/bad_step_<n> (a checkpoint folder plus bundle.json) and
/// returns its path.
std::filesystem::path write_replay_bundle(const RunParts& parts, const RunProgress& progress,
                                          const StepResult& result);

}  // namespace lh
