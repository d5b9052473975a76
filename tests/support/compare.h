// Comparing tensors in tests: random inputs, conversion to double, and checks whose failure prints
// the first bad coordinate, both values, and the maximum and mean error.
#pragma once

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "base/philox.h"
#include "tensor/tensor.h"

namespace lh::test {

/// Calls function(element position in row-major order, index in storage order) for a strided view.
template <typename F>
void for_each_element(const Tensor& t, F&& function) {
  const int64_t count = t.numel();
  for (int64_t flat = 0; flat < count; ++flat) {
    int64_t rest = flat, at = 0;
    for (int dim = t.rank() - 1; dim >= 0; --dim) {
      at += rest % t.size(dim) * t.strides()[dim];
      rest /= t.size(dim);
    }
    function(flat, at);
  }
}

/// All values as doubles in row-major order; any dtype, any strides.
inline std::vector<double> to_doubles(const Tensor& t) {
  std::vector<double> values(static_cast<size_t>(t.numel()));
  for_each_element(t, [&](int64_t flat, int64_t at) {
    double value = 0;
    switch (t.dtype()) {
      case DType::kF32:
        value = t.data<float>()[at];
        break;
      case DType::kBF16:
        value = static_cast<float>(t.data<bf16>()[at]);
        break;
      case DType::kF64:
        value = t.data<double>()[at];
        break;
      case DType::kI32:
        value = t.data<int32_t>()[at];
        break;
      case DType::kI64:
        value = static_cast<double>(t.data<int64_t>()[at]);
        break;
      case DType::kU8:
        value = t.data<uint8_t>()[at];
        break;
    }
    values[static_cast<size_t>(flat)] = value;
  });
  return values;
}

/// Writes row-major values into a tensor of any dtype and strides (bf16 is rounded from float).
inline void assign(Tensor& t, const std::vector<double>& values) {
  LH_CHECK_EQ(static_cast<int64_t>(values.size()), t.numel(), "[assign] value count");
  for_each_element(t, [&](int64_t flat, int64_t at) {
    const double value = values[static_cast<size_t>(flat)];
    switch (t.dtype()) {
      case DType::kF32:
        t.data<float>()[at] = static_cast<float>(value);
        break;
      case DType::kBF16:
        t.data<bf16>()[at] = bf16(static_cast<float>(value));
        break;
      case DType::kF64:
        t.data<double>()[at] = value;
        break;
      case DType::kI32:
        t.data<int32_t>()[at] = static_cast<int32_t>(value);
        break;
      case DType::kI64:
        t.data<int64_t>()[at] = static_cast<int64_t>(value);
        break;
      case DType::kU8:
        t.data<uint8_t>()[at] = static_cast<uint8_t>(value);
        break;
    }
  });
}

inline Tensor from_doubles(const std::vector<double>& values, const Shape& shape, DType dtype) {
  Tensor t = Tensor::empty(shape, dtype);
  assign(t, values);
  return t;
}

/// Standard normal times `scale`, rounded to dtype; the same numbers for every dtype of one seed.
inline Tensor random_tensor(const Shape& shape, DType dtype, uint64_t seed, double scale = 1) {
  Philox random(seed);
  std::vector<double> values(static_cast<size_t>(shape.numel()));
  for (double& value : values) value = scale * random.normal();
  return from_doubles(values, shape, dtype);
}

/// Uniform integers in [0, below).
inline Tensor random_ids(const Shape& shape, int64_t below, uint64_t seed) {
  Philox random(seed);
  std::vector<double> values(static_cast<size_t>(shape.numel()));
  for (double& value : values)
    value = static_cast<double>(random.below(static_cast<uint64_t>(below)));
  return from_doubles(values, shape, DType::kI32);
}

/// "[1, 0, 7]" of a row-major position.
inline std::string coordinate(const Shape& shape, int64_t flat) {
  std::string text = "]";
  for (int dim = shape.rank() - 1; dim >= 0; --dim) {
    text = fmt::format("{}{}", flat % shape[dim], text);
    if (dim > 0) text = ", " + text;
    flat /= shape[dim];
  }
  return "[" + text;
}

/// What compare() found; converts to true when every element is within the tolerance.
struct Difference {
  double max_error = 0, mean_error = 0;
  int64_t bad = 0;
  std::string message;
  explicit operator bool() const { return bad == 0; }
};

/// |actual - expected|, 0 for equal infinities and for two NaN, infinite for one NaN.
inline double absolute_error(double actual, double expected) {
  if (actual == expected || (std::isnan(actual) && std::isnan(expected))) return 0;
  const double error = std::abs(actual - expected);
  return std::isnan(error) ? INFINITY : error;
}

/// Elementwise |actual - expected| <= atol + rtol |expected|. Both in row-major order.
inline Difference compare(const Tensor& actual, const std::vector<double>& expected, double atol,
                          double rtol = 0) {
  Difference result;
  const std::vector<double> values = to_doubles(actual);
  if (values.size() != expected.size()) {
    result.bad = 1;
    result.message = fmt::format("{} against {} expected values", actual.str(), expected.size());
    return result;
  }
  int64_t first = -1;
  double sum = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double error = absolute_error(values[i], expected[i]);
    sum += error;
    result.max_error = std::max(result.max_error, error);
    if (error == 0 || error <= atol + rtol * std::abs(expected[i])) continue;  // 0 * inf is NaN
    if (result.bad++ == 0) first = static_cast<int64_t>(i);
  }
  if (!values.empty()) result.mean_error = sum / static_cast<double>(values.size());
  result.message = fmt::format("{}: max error {:.3g}, mean error {:.3g}", actual.str(),
                               result.max_error, result.mean_error);
  if (first >= 0) {
    result.message +=
        fmt::format("; {} of {} bad, first at {}: {:.9g}, expected {:.9g}", result.bad,
                    values.size(), coordinate(actual.shape(), first),
                    values[static_cast<size_t>(first)], expected[static_cast<size_t>(first)]);
  }
  return result;
}

inline Difference compare(const Tensor& actual, const Tensor& expected, double atol,
                          double rtol = 0) {
  Difference result = compare(actual, to_doubles(expected), atol, rtol);
  if (!(actual.shape() == expected.shape())) {
    result.bad = 1;
    result.message = fmt::format("{} against {}", actual.str(), expected.str());
  }
  return result;
}

/// The rule for kernels: max error against the fp64 reference is at most twice that of a plain
/// formulation computed in the same dtype, plus atol.
inline Difference compare_twice(const Tensor& actual, const Tensor& composite,
                                const std::vector<double>& reference, double atol) {
  const Difference plain = compare(composite, reference, INFINITY);
  Difference result = compare(actual, reference, 2 * plain.max_error + atol);
  result.message += fmt::format(" (plain formulation: max error {:.3g})", plain.max_error);
  return result;
}

/// Same shape, dtype and bits.
inline bool bitwise_equal(const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype() || !(a.shape() == b.shape())) return false;
  LH_CHECK(a.is_contiguous() && b.is_contiguous(), "[bitwise_equal] needs contiguous tensors");
  return a.numel() == 0 || std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

}  // namespace lh::test

/// doctest checks that print the message of a Difference. Variadic: arguments may hold commas.
#define LH_TEST_DIFFERENCE(difference)                                        \
  do {                                                                        \
    const ::lh::test::Difference lh_difference_ = (difference);               \
    CHECK_MESSAGE(static_cast<bool>(lh_difference_), lh_difference_.message); \
  } while (false)
/// LH_CHECK_CLOSE(actual, expected, atol[, rtol])
#define LH_CHECK_CLOSE(...) LH_TEST_DIFFERENCE(::lh::test::compare(__VA_ARGS__))
/// LH_CHECK_TWICE(actual, composite, reference, atol)
#define LH_CHECK_TWICE(...) LH_TEST_DIFFERENCE(::lh::test::compare_twice(__VA_ARGS__))
