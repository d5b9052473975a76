// The checks an operation needs before it touches memory, the same on every device. Messages name
// the operation and the operand.
#pragma once

#include <string_view>
#include <vector>

#include "base/error.h"
#include "tensor/tensor.h"

namespace lh {

inline void check_contiguous(const Tensor& t, std::string_view op, std::string_view name) {
  if (!t.is_contiguous()) fail<ShapeError>("[{}] {}: expected a contiguous tensor, got a view of {}", op, name, t.str());
}

inline void check_rank(const Tensor& t, int rank, std::string_view op, std::string_view name) {
  if (t.rank() != rank) fail<ShapeError>("[{}] {}: expected {} dimensions, got {}", op, name, rank, t.str());
}

/// Same shape and dtype as `like`.
inline void check_like(const Tensor& t, const Tensor& like, std::string_view op,
                       std::string_view name) {
  check_shape(t, like.shape(), op, name);
  check_dtype(t, like.dtype(), op, name);
}

/// The dtype of sums over tensors of `dtype`: f64 for f64, else f32.
inline DType sum_dtype(DType dtype) {
  return dtype == DType::kF64 ? DType::kF64 : DType::kF32;
}

/// Contiguous, of the given shape, and of the dtype sums of `dtype` are kept in.
inline void check_sum(const Tensor& t, const Shape& shape, DType dtype, std::string_view op,
                      std::string_view name) {
  check_shape(t, shape, op, name);
  check_dtype(t, sum_dtype(dtype), op, name);
  check_contiguous(t, op, name);
}

/// A tensor seen as rows of contiguous elements, any distance between rows.
struct RowView {
  int64_t rows = 0, cols = 0, stride = 0;
};

/// Merges all leading dimensions into rows and all dimensions from `first_inner` on into columns;
/// throws when the strides don't allow it.
RowView row_view(const Tensor& t, int first_inner, std::string_view op, std::string_view name);

/// One dimension of a copy: its size and the strides of both sides in elements.
struct CopyDim {
  int64_t size, src, dst;
};
/// Dimensions of size 1 dropped, neighbours merged where both sides allow; at least one remains.
std::vector<CopyDim> merged_copy_dims(const Tensor& src, const Tensor& dst);

/// Logical sizes of a product, checked as backend/matmul.h demands.
struct GemmSize {
  int64_t m = 0, n = 0, k = 0;
};
GemmSize check_gemm(const Tensor& a, bool trans_a, const Tensor& b, bool trans_b, const Tensor& c,
                    const Tensor& bias = Tensor());

}  // namespace lh
