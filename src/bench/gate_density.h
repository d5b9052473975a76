// Hard gates of a given density, for a model that has not learned any.
#pragma once

#include "data/batch.h"
#include "models/decoder.h"

namespace lh::bench {

/// The threshold and what it keeps.
struct Density {
  double threshold = 0;
  double kept = 0;  // of the keys outside the window, all layers and heads of this batch
};

/// The lowest threshold of all sp_kv mixers, to a thousandth of a logit, at which they keep at most `share`.
Density threshold_keeping(const Decoder& model, const Batch& batch, double share);

}  // namespace lh::bench
