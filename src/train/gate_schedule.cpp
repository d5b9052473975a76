#include "train/gate_schedule.h"

#include <algorithm>

#include "base/error.h"
#include "base/philox.h"

namespace lh {

GatePhase gate_phase(const Recipe& recipe, int64_t step) {
  const ScheduleConfig& schedule = recipe.schedule;
  const int64_t soft = schedule.gates.resolved_soft_steps(schedule.steps);
  const int64_t anneal = schedule.gates.resolved_anneal_steps(schedule.steps);
  GatePhase phase;
  if (step < soft) {
    const bool drawn = schedule.gates.kind == "bernoulli";
    phase.mode = drawn ? GateMode::kSample : GateMode::kSoft;
    if (drawn)
      phase.draw_seed =
          Philox(static_cast<uint64_t>(recipe.run.seed), static_cast<uint64_t>(step)).next_u64();
  } else if (step < soft + anneal) {
    phase.mode = GateMode::kAnneal;
    phase.alpha = static_cast<double>(step - soft + 1) / static_cast<double>(anneal + 1);
  }
  return phase;
}

std::vector<GatePhase> gate_phases(const Recipe& recipe) {
  if (!recipe.model.has_learned_gates()) return {GatePhase{}};
  const ScheduleConfig& schedule = recipe.schedule;
  const int64_t soft = schedule.gates.resolved_soft_steps(schedule.steps);
  const int64_t hard = soft + schedule.gates.resolved_anneal_steps(schedule.steps);
  std::vector<GatePhase> phases;
  if (soft > 0) phases.push_back(gate_phase(recipe, 0));
  if (hard > soft) phases.push_back(gate_phase(recipe, soft));
  if (hard < schedule.steps || phases.empty()) phases.push_back(gate_phase(recipe, hard));
  return phases;
}

void number_rows(Batch& batch) {
  batch.row_numbers.assign(batch.tokens.size(), -1);
  for (size_t s = 0; s + 1 < batch.segment_offsets.size(); ++s) {
    const int64_t begin = batch.segment_offsets[s], end = batch.segment_offsets[s + 1];
    if (std::all_of(batch.targets.begin() + begin, batch.targets.begin() + end,
                    [](int32_t target) { return target < 0; }))
      continue;
    for (int64_t row = begin; row < end; ++row)
      batch.row_numbers[static_cast<size_t>(row)] = batch.first_row + row;
  }
}

double density_pull(double density_weight, const ModelConfig& model, int64_t document_tokens) {
  int64_t layers = 0;
  for (int64_t layer = 0; layer < model.num_layers; ++layer)
    layers += model.mixer_of_layer(layer).has_learned_gates() ? 1 : 0;
  LH_CHECK(layers > 0 && document_tokens > 0, "[gates] {} layers of learned gates, {} tokens", layers,
           document_tokens);
  return -density_weight / static_cast<double>(layers * model.resolved_num_kv_heads() * document_tokens);
}

}  // namespace lh
