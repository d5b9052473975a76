// Comparisons with the definition of attention that its tests share. Bounds are a few times the
// rounding of the dtype.
#pragma once

#include <doctest/doctest.h>

#include <cstring>

#include "backend/attention_reference.h"

namespace lh::test {

struct Bounds {
  double out, lse, gradient;
};

inline Bounds bounds_of(DType dtype) {
  if (dtype == DType::kF64) return {1e-13, 1e-13, 1e-12};
  if (dtype == DType::kF32)
    return {1e-5, 2e-6, 2e-5};  // unscaled scores reach 40, half a unit there is 2e-6
  return {4e-2, 2e-6, 8e-2};
}

inline constexpr DType kDTypes[] = {DType::kF32, DType::kBF16, DType::kF64};

/// What both passes gave against the reference in `a`.
inline void check_results(const AttentionTensors& t, const AttentionArrays& a, DType dtype, bool biased) {
  const Bounds bounds = bounds_of(dtype);
  CHECK(difference(t.out, a.out) < bounds.out);
  CHECK(difference(t.lse, a.lse) < bounds.lse);
  CHECK(difference(t.dq, a.dq) < bounds.gradient);
  CHECK(difference(t.dk, a.dk) < bounds.gradient);
  CHECK(difference(t.dv, a.dv) < bounds.gradient);
  if (biased) CHECK(difference(t.dbias, a.dbias) < bounds.gradient);
}

inline void check_case(const AttentionCase& c, DType dtype, uint32_t seed = 1, bool biased = false) {
  CAPTURE(dtype_name(dtype));
  CAPTURE(c.heads);
  CAPTURE(c.kv_heads);
  CAPTURE(c.d);
  CAPTURE(c.v_d);
  CAPTURE(c.query_rows);
  CAPTURE(c.key_rows);
  CAPTURE(c.plan.mask.window);
  CAPTURE(c.plan.mask.sinks);
  CAPTURE(c.plan.mask.bias_window);
  AttentionArrays a = random_arrays(c, dtype, seed);
  if (biased) add_random_bias(c, a, seed + 4);
  attention_reference(c, a);
  AttentionTensors t(c, a, dtype);
  t.forward(c.plan);
  t.backward(c.plan);
  check_results(t, a, dtype, biased);
}

inline bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

}  // namespace lh::test
