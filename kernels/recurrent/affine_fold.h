// Affine recurrences over the segments of a sequence: states of recurrent mixers across processes.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

enum class Transition { kScalar, kDiagonal, kMatrix };

struct AffineParams {
  const float* a = nullptr;  // [segments, heads] scalar, [.., k] diagonal or [.., k, k] matrix
  const float* b = nullptr;  // [segments, heads, k, v]
  float* out = nullptr;      // like b
  Transition transition = Transition::kScalar;
  int segments = 0, heads = 0, k = 0, v = 0;
  bool backwards = false;
};

/// out[0] = 0, out[j + 1] = a[j] out[j] + b[j]; backwards: out[segments - 1] = 0,
/// out[j - 1] = a[j]^T out[j] + b[j]. No operand overlaps another. xpu::Error when k is above 768 (sm_80: 640).
void affine_fold(const AffineParams& p, xpu::Stream stream);

/// da[j] = the matrix, diagonal or trace (as sizes.transition) of g[j] s[j]^T, g and s like b: the
/// gradient of the transitions. Pointers in sizes are not read.
void affine_transition_gradient(const float* g, const float* s, const AffineParams& sizes, float* da,
                                xpu::Stream stream);

}  // namespace lh::kernels
