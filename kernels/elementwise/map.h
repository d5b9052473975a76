// A grid-stride loop over n elements in groups of 16 bytes, with single elements at the end. For the
// .cu files of this folder and the optimizers.
//   struct Op { template <int N> __device__ void at(std::int64_t i) const; };  // elements i .. i + N
#pragma once
#include "kernels/xpu/xpu.h"

namespace lh::kernels {

/// N consecutive elements as floats, moved in pieces of at most 16 bytes, each aligned to its size.
template <int N, class T>
__device__ inline void load(const T* p, float (&x)[N]) {
  constexpr int kPiece = N * sizeof(T) <= 16 ? N : 16 / sizeof(T);
#pragma unroll
  for (int i = 0; i < N; i += kPiece) {
    const auto piece = xpu::load_vec<kPiece>(p + i);
#pragma unroll
    for (int j = 0; j < kPiece; ++j) x[i + j] = xpu::to_float(piece[j]);
  }
}

template <int N, class T>
__device__ inline void store(T* p, const float (&x)[N]) {
  constexpr int kPiece = N * sizeof(T) <= 16 ? N : 16 / sizeof(T);
#pragma unroll
  for (int i = 0; i < N; i += kPiece) {
    xpu::Vec<T, kPiece> piece;
#pragma unroll
    for (int j = 0; j < kPiece; ++j) piece[j] = xpu::from_float<T>(x[i + j]);
    xpu::store_vec(p + i, piece);
  }
}

constexpr int kMapThreads = 256;

template <class Op, int N>
__global__ void __launch_bounds__(kMapThreads) map_kernel(const Op op, const std::int64_t n) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kMapThreads;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kMapThreads + threadIdx.x;
  for (std::int64_t i = first; i < n / N; i += step) op.template at<N>(i * N);
  if constexpr (N > 1) {
    if (first < n % N) op.template at<1>(n - n % N + first);
  }
}

inline bool aligned16(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
}

/// `vector`: every pointer of the operation is aligned for groups of N.
template <int N, class Op>
void map(const Op& op, std::int64_t n, bool vector, xpu::Stream stream) {
  if (n == 0) return;
  constexpr std::int64_t kMaxBlocks = 2112;  // 16 for each multiprocessor of an H200
  const int group = vector ? N : 1;
  const auto blocks = xpu::ceil_div(xpu::ceil_div(n, group), kMapThreads);
  const xpu::LaunchConfig config{static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks),
                                 kMapThreads, 0, stream};
  if (vector) {
    xpu::launch<map_kernel<Op, N>>(config, op, n);
  } else {
    xpu::launch<map_kernel<Op, 1>>(config, op, n);
  }
}

/// Where element i of a [rows, cols] operand lies: rows of contiguous elements, `stride` apart.
struct RowIndex {
  std::int64_t cols;
  __device__ std::int64_t operator()(std::int64_t i, std::int64_t stride) const {
    return stride == cols ? i : i / cols * stride + i % cols;
  }
};

/// Groups of N elements stay within a row and keep their alignment.
inline bool rows_aligned(const void* p, std::int64_t cols, std::int64_t stride, int n) {
  return aligned16(p) && (stride == cols || (cols % n == 0 && stride % n == 0));
}

}  // namespace lh::kernels
