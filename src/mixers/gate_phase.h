// What a schedule tells self-pruning mixers about one step. Part of the layout, which every layer of the
// step sees (and a recomputed block again).
#pragma once

#include <optional>

#include "backend/utility_gate.h"

namespace lh {

/// The number that these mixers report (mixer_report.h): the share, per kv head, of the keys that some query has
/// outside its window that a threshold keeps.
inline constexpr const char* kKvDensity = "kv_density";
/// And the share of all keys that a cache holds at the end of a document, those of the window included: rho of
/// section 1.7, (window + density (tokens - window)) / tokens.
inline constexpr const char* kCacheFraction = "cache_fraction";

struct GateControl;

/// The default is what a trained model does: hard gates at the mixer's own threshold.
struct GatePhase {
  GateMode mode = GateMode::kHard;
  double alpha = 1;                  // kAnneal only
  std::optional<double> threshold;  // in place of the mixer's own
  const GateControl* control = nullptr;  // when not null, replaces hard gates (gate_control.h)
  double pull = 0;                  // UtilityGate::pull, while the predictor learns
  Tensor* utilities = nullptr;      // [1] f64: when not null, a forward with history adds its own to it
  uint64_t draw_seed = 0;           // of this run and step, kSample only

  /// Whether the predictor is trained: later it is frozen.
  bool learns() const { return mode == GateMode::kSoft || mode == GateMode::kSample; }
};

}  // namespace lh
