// Global gradient norm, clipping, and the search for bad gradients.
#pragma once

#include <optional>
#include <string>

#include "nn/parameter.h"

namespace lh {

/// Euclidean norm over all gradients, summed in double in the store's order.
double global_grad_norm(const ParameterStore& store);

/// What gradients are multiplied by so that their norm is at most clip_norm; 1 when clip_norm is 0.
double clip_factor(double clip_norm, double norm);

/// Name of the first parameter whose gradient holds a NaN or infinity.
std::optional<std::string> first_non_finite_gradient(const ParameterStore& store);

}  // namespace lh
