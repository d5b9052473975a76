// SP-KV models whose hard gates keep a given share of keys without having learned which.
#pragma once

#include "models/decoder.h"
#include "train/batch_tensors.h"

namespace lh::bench {

/// Moves the biases of the predictors until the hard gates of every kv head keep about `density` of the keys of
/// `batch` that some query has outside its window. Returns the share that all heads together then keep.
double set_gate_density(Decoder& model, const Batch& batch, double density);

}  // namespace lh::bench
