// Reductions to one number and scans for bad values. Sums are kept in double, in a fixed order.
#pragma once

#include <memory>
#include <vector>

#include "backend/backend_state.h"
#include "tensor/dispatch.h"
#include "tensor/tensor.h"

namespace lh {

/// Tensors that one call reads together, contiguous.
struct TensorList {
  std::vector<Tensor> tensors;
  mutable std::shared_ptr<BackendState> backend_state = nullptr;
};

}  // namespace lh

LH_BACKENDS(
    /// out [1] f64 = (accumulate ? out : 0) + sum of x^2 (or of x).
    void sum_of_squares(const Tensor& x, Tensor& out, bool accumulate);
    void sum(const Tensor& x, Tensor& out, bool accumulate);
    /// out [1] f64 = sum of x^2 over all elements of all tensors (gradients: f32, on the CPU any
    /// floating type), in the list's order; not finite exactly when an element is not.
    void sum_of_squares(const TensorList& list, Tensor& out);
    /// out [1] (f32, or f64) = 1 / (sqrt(sum_of_squares[0]) + eps), sum_of_squares [1] f64: a norm that
    /// the host never waits for.
    void inverse_norm(const Tensor& sum_of_squares, double eps, Tensor& out);
    /// out [1] i64 = number of NaN or infinite values.
    void count_non_finite(const Tensor& x, Tensor& out);)
