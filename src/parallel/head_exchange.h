// All-to-all between rows and heads (DeepSpeed-Ulysses, Jacobs et al. 2023): afterwards a process has
// some heads of all rows and runs any mixer as if it were alone.
#pragma once

#include <string>

#include "autograd/variable.h"
#include "parallel/context_layout.h"

namespace lh {

/// x [local rows, heads, d] -> [total rows, heads / n, d]: process r of n gets heads
/// [r heads / n, (r + 1) heads / n). ShapeError when n does not divide heads.
Variable rows_to_heads(const Variable& x, const ContextLayout& layout, const std::string& label);

/// The inverse: [total rows, heads / n, d] -> [local rows, heads, d].
Variable heads_to_rows(const Variable& x, const ContextLayout& layout, const std::string& label);

}  // namespace lh
