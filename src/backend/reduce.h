// Reductions to one number and scans for bad values. Sums are kept in double, in a fixed order.
#pragma once

#include "tensor/dispatch.h"
#include "tensor/tensor.h"

LH_BACKENDS(
    /// out [1] f64 = (accumulate ? out : 0) + sum of x^2 (or of x).
    void sum_of_squares(const Tensor& x, Tensor& out, bool accumulate);
    void sum(const Tensor& x, Tensor& out, bool accumulate);
    /// out [1] (f32, or f64) = 1 / (sqrt(sum_of_squares[0]) + eps), sum_of_squares [1] f64: a norm that
    /// the host never waits for.
    void inverse_norm(const Tensor& sum_of_squares, double eps, Tensor& out);
    /// out [1] i64 = number of NaN or infinite values.
    void count_non_finite(const Tensor& x, Tensor& out);)
