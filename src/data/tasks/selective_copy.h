// Selective copy: items scattered at random in noise, to be repeated in order after a mark. Content
// decides what is kept, so no fixed convolution can do it (Gu and Dao 2023, "Mamba", section 4.1.1:
// 4096 tokens, 16 items, 16 symbols with the noise).
//
//   noise noise x1 noise x2 .. noise   copy   [x1] .. [x_items]
//   x in 0 .. vocab - 1; noise = vocab, copy = vocab + 1
#pragma once

#include "data/task.h"

namespace lh {

Example make_selective_copy(const TaskConfig& task, Philox& random);

}  // namespace lh
