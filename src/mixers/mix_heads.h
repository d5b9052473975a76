// Mixing whose heads do not meet, wherever the rows are: processes of a context-parallel group trade rows for
// heads, so that any such mixer runs as if it were alone.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "autograd/variable.h"
#include "mixers/sequence_layout.h"

namespace lh {

/// [rows, heads_i, d_i] of the rows that the plan covers -> [rows, H, d].
using MixHeads = std::function<Variable(const std::vector<Variable>& inputs,
                                        std::shared_ptr<const AttentionPlan> plan)>;

/// `mix` of this process's rows. Undefined inputs stay so. ShapeError when the group does not divide the heads of an
/// input.
Variable mix_heads(std::vector<Variable> inputs, const SequenceLayout& layout,
                   const AttentionMask& mask, double scale, const std::string& label,
                   const MixHeads& mix);

}  // namespace lh
