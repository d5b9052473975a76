// Needle in a haystack: sentences of key and value hidden in noise, and one key asked for at the end
// (Kamradt 2023; with several needles the multi-key form of RULER, Hsieh et al. 2024, whose values
// have 7 digits). The noise is made of the same symbols as keys and values, so that a needle shows by
// its mark alone; `depth` is the share of the noise before the needle asked for.
//
//   noise ..  mark k v1 .. v_n  .. noise   ask k [v1] .. [v_n]
//   noise, k and v in 0 .. vocab - 1, keys all different; mark = vocab, ask = vocab + 1
#pragma once

#include "data/task.h"

namespace lh {

Example make_needle(const TaskConfig& task, Philox& random);

}  // namespace lh
