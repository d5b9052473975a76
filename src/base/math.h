// Integer helpers with checks where silent loss would hurt.
#pragma once

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

}  // namespace lh
