// Rotary position embedding with explicit positions.
#pragma once

#include "autograd/variable.h"

namespace lh {

/// Rotates x [n, heads, d] by the angles of positions [n] (i32). table [max_position, d]: see
/// backend/rope.h; nn/rope_table.h makes one.
Variable rope(const Variable& x, const Tensor& table, const Tensor& positions);

}  // namespace lh
