#include "backend/cpu/simd/gemv.h"

#include "backend/cpu/simd/vec.h"

namespace lh::cpu::LH_SIMD_NAMESPACE {
namespace {

/// kRows rows together: each load of x serves all of them, and their sums are independent chains.
template <int kRows, typename T>
void dot_block(const float* x, const T* w, int64_t stride, int64_t n, float* y) {
  VecF sums[kRows] = {};
  for_lanes<float>(n, [&](int64_t j, auto tail) {
    const VecF v = load(x + j, tail);
    for (int i = 0; i < kRows; ++i) {
      // Rows are too short for the hardware to see where the next ones come from.
      __builtin_prefetch(w + (kRows + i) * stride + j);
      sums[i] += v * load(w + i * stride + j, tail);
    }
  });
  for (int i = 0; i < kRows; ++i) y[i] = sum_lanes(sums[i]);
}

}  // namespace

template <typename T>
void dot_rows(const float* x, const T* w, int64_t stride, int64_t rows, int64_t n, float* y) {
  int64_t i = 0;
  for (; i + 8 <= rows; i += 8) dot_block<8>(x, w + i * stride, stride, n, y + i);
  for (; i < rows; ++i) dot_block<1>(x, w + i * stride, stride, n, y + i);
}

template <typename T>
void add_weighted_rows(const float* p, const T* w, int64_t stride, int64_t rows, int64_t n,
                       float* y) {
  constexpr int64_t kStep = 4 * Compute<float>::kLanes;
  int64_t j = 0;
  // Four registers of y at a time stay in registers over all rows.
  for (; j + kStep <= n; j += kStep) {
    VecF sums[4];
    for (int c = 0; c < 4; ++c) sums[c] = load(y + j + c * Compute<float>::kLanes, Full{});
    for (int64_t i = 0; i < rows; ++i)
      for (int c = 0; c < 4; ++c)
        sums[c] += p[i] * load(w + i * stride + j + c * Compute<float>::kLanes, Full{});
    for (int c = 0; c < 4; ++c) store(y + j + c * Compute<float>::kLanes, sums[c], Full{});
  }
  for_lanes<float>(n - j, [&](int64_t at, auto tail) {
    VecF sum = load(y + j + at, tail);
    for (int64_t i = 0; i < rows; ++i) sum += p[i] * load(w + i * stride + j + at, tail);
    store(y + j + at, sum, tail);
  });
}

template void add_weighted_rows(const float*, const float*, int64_t, int64_t, int64_t, float*);
template void add_weighted_rows(const float*, const uint16_t*, int64_t, int64_t, int64_t, float*);
template void dot_rows(const float*, const float*, int64_t, int64_t, int64_t, float*);
template void dot_rows(const float*, const uint16_t*, int64_t, int64_t, int64_t, float*);

}  // namespace lh::cpu::LH_SIMD_NAMESPACE
