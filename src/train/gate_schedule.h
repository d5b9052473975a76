// Which phase the gates of sp_kv mixers are in.
#pragma once

#include "config/recipe.h"
#include "mixers/gate_phase.h"

namespace lh {

/// For the step after `step` completed ones: soft, then annealing with alpha rising evenly between
/// 0 and 1, both left out, then hard.
GatePhase gate_phase(const ScheduleConfig& schedule, int64_t step);

}  // namespace lh
