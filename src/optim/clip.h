// Global gradient norm, clipping, and the search for bad gradients.
#pragma once

#include <optional>
#include <string>

#include "backend/reduce.h"
#include "nn/parameter.h"

namespace lh {

/// out [1] f64 = squared Euclidean norm over all gradients, in the store's order, without waiting for
/// the device. `list` is refilled; kept from call to call it saves its upload.
void grad_sum_of_squares(const ParameterStore& store, TensorList& list, Tensor& out);

/// Euclidean norm over all gradients; waits for the device.
double global_grad_norm(const ParameterStore& store);

/// What gradients are multiplied by so that their norm is at most clip_norm; 1 when clip_norm is 0.
double clip_factor(double clip_norm, double norm);

/// Index of the first parameter whose gradient holds a NaN or infinity; waits for the device.
std::optional<size_t> first_non_finite_gradient(const ParameterStore& store);

}  // namespace lh
