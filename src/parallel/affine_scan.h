// States of recurrent mixers across a context-parallel group: S after a run of rows is A S + B, with S the
// state before it, so (A, B) of all runs decide the state before each.
#pragma once

#include <string>

#include "autograd/variable.h"
#include "parallel/context_layout.h"

namespace lh {

/// The state [runs, h, k, v] before each of this process's runs (ranges of layout.held(), in order),
/// from the transition and the contribution of each: b [runs, h, k, v] f32 (f64), a [runs, h] for a
/// scalar decay, [runs, h, k] for one per row of the state, [runs, h, k, k] for a matrix
/// (backend/recurrent.h). A run in which a document begins has transition 0 for the state before it.
/// Exact for any order of rows. Backward is the same scan from the end with transposed transitions.
Variable affine_exclusive_scan(const Variable& a, const Variable& b, const ContextLayout& layout,
                               const std::string& label);

}  // namespace lh
