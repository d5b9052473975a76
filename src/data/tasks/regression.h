// In-context linear regression: points (x, y) of a linear function that is new in every example, each
// y to be predicted from its x and the points before (Garg et al. 2022, "What Can Transformers Learn
// In-Context?": x and w standard normal, y = w x, 20 dimensions, 41 points). There numbers are inputs
// as they are; here inputs are tokens, so each coordinate is the index of its bin.
//
// Bins are of equal width over -3 .. 3, beyond which a number takes the last one. y is computed from
// the middles of the bins of x and divided by the root of the dimension, so that it too has variance
// 1; it is exactly linear up to its own bin. The first answers of an example can't be known: a perfect
// predictor has a loss above 0.
//
//   x11 .. x1d [y1]   x21 .. x2d [y2] ..       x in 0 .. bins - 1, y in bins .. 2 bins - 1
#pragma once

#include "data/task.h"

namespace lh {

Example make_regression(const TaskConfig& task, Philox& random);

}  // namespace lh
