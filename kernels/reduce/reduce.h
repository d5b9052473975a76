// Sums over all elements of a vector, in fp64 and in a fixed order.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

enum class Reduction { kSum, kSumOfSquares };

/// out[0] = (accumulate ? out[0] : 0) + sum. `workspace`: kReduceWorkspace doubles.
template <class T>
void reduce(Reduction kind, const T* x, std::int64_t n, bool accumulate, double* out,
            double* workspace, xpu::Stream stream);

/// out[0] = how many of x are NaN or infinite.
template <class T>
void count_non_finite(const T* x, std::int64_t n, std::int64_t* out, double* workspace,
                      xpu::Stream stream);

/// out[0] = 1 / (sqrt(sum_of_squares[0]) + eps).
void inverse_norm(const double* sum_of_squares, double eps, float* out, xpu::Stream stream);

constexpr std::size_t kReduceWorkspace = 1024;

}  // namespace lh::kernels
