// Hybrids of local and global attention designed by what SP-KV learned (arXiv 2605.14037, section 4): a
// closed gate shows that a head does without a key, so the density of a head tells whether it needs to
// see beyond its window.
#pragma once

#include "config/recipe.h"
#include "mixers/gate_control.h"

namespace lh {

/// `recipe` with the `global_heads` densest (layer, kv head) pairs of its sp_kv layers seeing all tokens and
/// the other ones their window alone: layers become softmax, sliding_window, or sp_kv with
/// global_kv_heads. What belonged to the predictor (schedule.gates, its parameter groups) is gone.
/// ConfigError when it has no such layer, or not so many heads.
Recipe hybrid_recipe(const Recipe& recipe, const MixerFigure& density, int64_t global_heads);

}  // namespace lh
