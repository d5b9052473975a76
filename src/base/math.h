// Small helpers where silent loss would hurt: of integers, and of NaN.
#pragma once

#include <cmath>

#include <cstdint>
#include <limits>

#include "base/error.h"

namespace lh {

constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

constexpr int64_t round_up(int64_t a, int64_t multiple) {
  return ceil_div(a, multiple) * multiple;
}

/// a / b, and an error when b does not divide a.
inline int64_t div_exact(int64_t a, int64_t b) {
  LH_CHECK(b != 0 && a % b == 0, "{} is not divisible by {}", a, b);
  return a / b;
}

/// static_cast between integers that throws on loss.
template <typename To, typename From>
To narrow(From value) {
  const To result = static_cast<To>(value);
  LH_CHECK(static_cast<From>(result) == value && ((result < To{}) == (value < From{})),
           "integer {} does not fit the target type", value);
  return result;
}

/// The larger of two errors; NaN when either is, so that a running maximum keeps the first one it meets.
inline double larger_or_nan(double a, double b) {
  return std::isnan(a) || a >= b ? a : b;
}

}  // namespace lh
