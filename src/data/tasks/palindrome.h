// Palindrome: integers, an instruction, and the integers in reverse. What must be looked up lies ever
// further back, so a window without memory fails and full attention solves it within some hundred
// steps (SP-KV, appendix G: 32 two-digit integers, an instruction of at least 50 tokens, loss on the
// output only).
//
//   x1 .. x_items   vocab * (gap - 1)   vocab + 1   [x_items] .. [x1]        x in 0 .. vocab - 1
#pragma once

#include "data/task.h"

namespace lh {

/// `task` with all settings of its kind (TaskConfig::resolved); so in all of tasks/.
Example make_palindrome(const TaskConfig& task, Philox& random);

}  // namespace lh
