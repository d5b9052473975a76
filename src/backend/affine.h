// Sizes of an affine recurrence, checked the same on every device (backend/recurrent.h).
#pragma once

#include "backend/operands.h"

namespace lh {

enum class AffineKind : uint8_t { kScalar, kDiagonal, kMatrix };

struct AffineSize {
  AffineKind kind = AffineKind::kScalar;
  int64_t segments = 0, heads = 0, k = 0, v = 0;

  /// Elements of one transition.
  int64_t transition() const {
    return kind == AffineKind::kScalar ? 1 : kind == AffineKind::kDiagonal ? k : k * k;
  }
};

/// a: transitions; b and c: states of one shape.
inline AffineSize check_affine(const Tensor& a, const Tensor& b, const Tensor& c,
                               std::string_view op) {
  check_rank(b, 4, op, "states");
  check_like(c, b, op, "states");
  for (const Tensor* t : {&a, &b, &c}) check_contiguous(*t, op, "operand");
  if (b.dtype() != DType::kF32 && b.dtype() != DType::kF64)
    fail<ShapeError>("[{}] states are f32 or f64, got {}", op, b.str());
  check_dtype(a, b.dtype(), op, "transitions");
  AffineSize size{AffineKind::kScalar, b.size(0), b.size(1), b.size(2), b.size(3)};
  Shape wanted{size.segments, size.heads};
  if (a.rank() == 3) {
    size.kind = AffineKind::kDiagonal;
    wanted = {size.segments, size.heads, size.k};
  } else if (a.rank() == 4) {
    size.kind = AffineKind::kMatrix;
    wanted = {size.segments, size.heads, size.k, size.k};
  }
  check_shape(a, wanted, op, "transitions");
  return size;
}

}  // namespace lh
