// Activation checkpointing: trade memory for a second forward pass.
#pragma once

#include <functional>
#include <span>

#include "autograd/variable.h"

namespace lh {

/// function(inputs), keeping only the inputs; the backward pass runs it again with history.
/// The function must be deterministic and may capture parameters, whose gradients collect as usual.
Variable checkpoint(const std::function<Variable(std::span<const Variable>)>& function,
                    std::vector<Variable> inputs);

}  // namespace lh
