// What a process sends in a step, by what it is for: the communicator's counts (dist/communicator.h), whose labels
// name the layer or the numbers.
#pragma once

#include <string>
#include <vector>

#include "config/model_config.h"
#include "dist/communicator.h"

namespace lh {

/// Bytes of one kind of message, in all layers of one mixer together.
struct PlannedTraffic {
  std::string mixer;  // its name in model.mixers; empty: of no mixer
  /// Among all processes "gradients", "parameters" or "numbers" (losses, norms, flags). Of a mixer, among the
  /// processes of a sequence, "keys and values", "halo of keys and values" (a window's) or "heads".
  std::string what;
  bool backward = false;   // the gradient of it, the opposite way
  std::string collective;  // all_reduce, reduce_scatter, all_gather, all_to_all
  int64_t layers = 0;      // how many send it
  int64_t bytes = 0;
};

/// What is alike added up: of all processes first, then by mixer.
std::vector<PlannedTraffic> planned_traffic(const LabelTraffic& sent, const ModelConfig& model);

}  // namespace lh
