// Gates of self-pruned key-value attention.
#pragma once

#include "autograd/variable.h"
#include "backend/utility_gate.h"

namespace lh {

/// logits [n, kv_heads] -> the bias [n, kv_heads] of attention(), f32 (f64 for f64). A hard gate that is
/// not weighted has no gradient: its result is a constant.
Variable utility_gate(const Variable& logits, const UtilityGate& gate);

/// total [1] f64 += the utilities of all rows that gate.pull does not leave out.
void add_utilities(const Variable& logits, const UtilityGate& gate, Tensor& total);

}  // namespace lh
