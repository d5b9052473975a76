// Sum of squares over a list of tensors, in two launches.
#pragma once
#include "kernels/elementwise/chunks.h"

namespace lh::kernels {

/// An entry of the list in device memory.
struct NormTensor {
  const float* x = nullptr;      // [n]
  std::int64_t n = 0;            // above 0
  std::int64_t first_chunk = 0;  // chunks of the entries before this one
  bool operator==(const NormTensor&) const = default;
};

/// out[0] = sum of x^2 over all elements of `tensors` [count]; `chunks` is their number over all
/// entries and the size of `workspace`. Not finite exactly when one of the elements is not.
void list_sum_of_squares(const NormTensor* tensors, int count, std::int64_t chunks, double* out,
                         double* workspace, xpu::Stream stream);

}  // namespace lh::kernels
