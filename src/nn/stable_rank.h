// How many directions a matrix really uses.
#pragma once

#include "tensor/tensor.h"

namespace lh {

/// ||w||_F^2 / ||w||_2^2 of a matrix, between 1 and its rank; 0 for zeros. The largest singular value
/// is found by Lanczos iteration in f64, on the host, to 1e-6 relative. Any device, any float dtype.
double stable_rank(const Tensor& w);

}  // namespace lh
