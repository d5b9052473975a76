// What a schedule tells self-pruning mixers about one step, and what they report back. Part of the
// layout, which every layer of the step sees (and a recomputed block again).
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "backend/utility_gate.h"

namespace lh {

/// How many keys that some query has outside its window a threshold keeps, per layer and kv head.
class GateDensity {
 public:
  struct Count {
    int64_t kept = 0, all = 0;
    double share() const {
      return all == 0 ? 0 : static_cast<double>(kept) / static_cast<double>(all);
    }
  };
  /// Where a mixer of so many kv heads adds its counts.
  std::vector<Count>& of(const std::string& mixer, int64_t kv_heads) {
    std::vector<Count>& counts = counts_[mixer];
    counts.resize(static_cast<size_t>(kv_heads));
    return counts;
  }
  /// By the mixer's prefix ("model.layers.3.self_attn"), then by kv head.
  const std::map<std::string, std::vector<Count>>& counts() const { return counts_; }
  Count total() const {
    Count sum;
    for (const auto& [mixer, heads] : counts_)
      for (const Count& head : heads) {
        sum.kept += head.kept;
        sum.all += head.all;
      }
    return sum;
  }

 private:
  std::map<std::string, std::vector<Count>> counts_;
};

struct GateControl;

/// Anything but training is hard.
struct GatePhase {
  GateMode mode = GateMode::kHard;
  double alpha = 1;                  // kAnneal only
  std::optional<double> threshold;  // in place of the mixer's own
  GateDensity* density = nullptr;   // when not null, forward() adds to it
  const GateControl* control = nullptr;  // when not null, replaces hard gates (gate_control.h)
  double pull = 0;                  // UtilityGate::pull, while the predictor learns
  Tensor* utilities = nullptr;      // [1] f64: when not null, a forward with history adds its own to it
  uint64_t draw_seed = 0;           // of this run and step, kSample only

  /// Whether the predictor is trained: later it is frozen.
  bool learns() const { return mode == GateMode::kSoft || mode == GateMode::kSample; }
};

}  // namespace lh
