// Multi-query associative recall: pairs of key and value, then each key once more, at a random place,
// to be followed by its value (Arora et al. 2023, "Zoology", appendix; lengths 64 to 512 with 4 to 64
// pairs, vocabulary 8192). Queries come early more often than late: a distance of i slots has the
// weight i^(a - 1) with their a = 0.01. Unlike there the value follows its query in the input too, as
// in any text, and the places between hold one blank symbol.
//
//   k1 v1 .. k_pairs v_pairs   blank .. k3 [v3] blank blank .. k1 [v1] ..
//   keys 0 .. vocab/2 - 1, all different; values vocab/2 .. vocab - 1; blank = vocab
#pragma once

#include "data/task.h"

namespace lh {

Example make_mqar(const TaskConfig& task, Philox& random);

}  // namespace lh
