#include "train/gate_schedule.h"

namespace lh {

GatePhase gate_phase(const ScheduleConfig& schedule, int64_t step) {
  const int64_t soft = schedule.gates.resolved_soft_steps(schedule.steps);
  const int64_t anneal = schedule.gates.resolved_anneal_steps(schedule.steps);
  GatePhase phase;
  if (step < soft) {
    phase.mode = GateMode::kSoft;
  } else if (step < soft + anneal) {
    phase.mode = GateMode::kAnneal;
    phase.alpha = static_cast<double>(step - soft + 1) / static_cast<double>(anneal + 1);
  }
  return phase;
}

}  // namespace lh
