// Which phase the gates of sp_kv mixers are in.
#pragma once

#include "config/recipe.h"
#include "data/batch.h"
#include "mixers/gate_phase.h"

namespace lh {

/// For the step after `step` completed ones: soft or drawn, then annealing with alpha rising evenly
/// between 0 and 1, both left out, then hard.
GatePhase gate_phase(const Recipe& recipe, int64_t step);

/// One of each kind that a run goes through; just one where no mixer learns gates.
std::vector<GatePhase> gate_phases(const Recipe& recipe);

/// Gives every token of a batch of a training step its number in the step; filling, which are segments
/// without a target, gets -1.
void number_rows(Batch& batch);

/// UtilityGate::pull that adds -density_weight times the mean utility, over `document_tokens` of the
/// step and all heads of all layers that learn one, to the loss.
double density_pull(double density_weight, const ModelConfig& model, int64_t document_tokens);

}  // namespace lh
