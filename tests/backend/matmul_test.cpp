// gemm and gemv against sums in double of the same rounded inputs.
#include "backend/matmul.h"

#include <doctest/doctest.h>

#include <cmath>

#include "backend/elementwise.h"
#include "base/philox.h"

namespace {

using namespace lh;

/// Values in [-1, 1), rounded to `dtype`, and the same in double.
struct Operand {
  Tensor tensor;
  std::vector<double> values;
  Operand(int64_t rows, int64_t cols, DType dtype, uint64_t seed) {
    Philox random(seed);
    Tensor wide = Tensor::empty({rows, cols}, DType::kF64);
    for (double& v : wide.span<double>()) v = 2 * random.uniform() - 1;
    tensor = Tensor::empty({rows, cols}, dtype);
    cpu::copy(wide, tensor);
    cpu::copy(tensor, wide);
    values.assign(wide.span<double>().begin(), wide.span<double>().end());
  }
};

std::vector<double> as_double(const Tensor& t) {
  Tensor wide = Tensor::empty(t.shape(), DType::kF64);
  cpu::copy(t, wide);
  return {wide.span<double>().begin(), wide.span<double>().end()};
}

/// Bound of k products of values below 1 in f32, plus the rounding of the result.
double tolerance(DType dtype, int64_t k, double magnitude) {
  const double sum = dtype == DType::kF64 ? 1e-15 : 6e-8;
  const double result = dtype == DType::kBF16 ? 0x1p-8 : dtype == DType::kF32 ? 0x1p-24 : 0x1p-53;
  return sum * static_cast<double>(k) + result * magnitude;
}

TEST_CASE("gemv equals the sums in double for every few rows and odd sizes") {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF64})
    for (const int64_t rows : {1, 2, 3, 8})
      for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1, 1},
                                 {7, 5},
                                 {8, 16},
                                 {33, 100},
                                 {515, 64},
                                 {64, 1000},
                                 {1000, 515}}) {
        const Operand x(rows, k, dtype, 1), w(n, k, dtype, 2);
        Tensor y = Tensor::empty({rows, n}, dtype);
        cpu::gemv(x.tensor, w.tensor, y);
        const auto got = as_double(y);
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t i = 0; i < n; ++i) {
            double sum = 0;
            for (int64_t j = 0; j < k; ++j)
              sum += x.values[static_cast<size_t>(r * k + j)] *
                     w.values[static_cast<size_t>(i * k + j)];
            REQUIRE(std::abs(got[static_cast<size_t>(r * n + i)] - sum) <=
                    tolerance(dtype, k, std::abs(sum)));
          }
      }
}

TEST_CASE("gemv reads a weight that is a slice of columns") {
  const Operand x(2, 24, DType::kF32, 3), w(9, 40, DType::kF32, 4);
  Tensor y = Tensor::empty({2, 9}, DType::kF32), z = Tensor::empty({2, 9}, DType::kF32);
  const Tensor part = w.tensor.slice(1, 8, 32);
  Tensor whole = Tensor::empty({9, 24}, DType::kF32);
  cpu::copy(part, whole);
  cpu::gemv(x.tensor, part, y);
  cpu::gemv(x.tensor, whole, z);
  CHECK(as_double(y) == as_double(z));
}

TEST_CASE("gemv refuses operands that do not fit and names both") {
  Tensor y = Tensor::empty({1, 3}, DType::kF32);
  const Tensor x = Tensor::zeros({1, 4}, DType::kF32), w = Tensor::zeros({3, 5}, DType::kF32);
  CHECK_THROWS_WITH_AS(cpu::gemv(x, w, y), doctest::Contains("[gemv] expected x"), ShapeError);
  const Tensor narrow = Tensor::zeros({3, 4}, DType::kBF16);
  CHECK_THROWS_AS(cpu::gemv(x, narrow, y), ShapeError);
}

TEST_CASE("gemm equals the sums in double for every transpose and for accumulation") {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF64})
    for (const bool trans_a : {false, true})
      for (const bool trans_b : {false, true})
        for (const auto& [m, n, k] : {std::tuple<int64_t, int64_t, int64_t>{1, 1, 1},
                                      {3, 5, 7},
                                      {17, 33, 65},
                                      {64, 64, 64}})
          for (const bool accumulate : {false, true}) {
            const Operand a(trans_a ? k : m, trans_a ? m : k, dtype, 5);
            const Operand b(trans_b ? n : k, trans_b ? k : n, dtype, 6);
            const Operand c(m, n, dtype, 7);
            Tensor result = Tensor::empty({m, n}, dtype);
            cpu::copy(c.tensor, result);
            cpu::gemm(a.tensor, trans_a, b.tensor, trans_b, result, accumulate);
            const auto got = as_double(result);
            for (int64_t i = 0; i < m; ++i)
              for (int64_t j = 0; j < n; ++j) {
                double sum = accumulate ? c.values[static_cast<size_t>(i * n + j)] : 0;
                for (int64_t l = 0; l < k; ++l)
                  sum += a.values[static_cast<size_t>(trans_a ? l * m + i : i * k + l)] *
                         b.values[static_cast<size_t>(trans_b ? j * k + l : l * n + j)];
                REQUIRE(std::abs(got[static_cast<size_t>(i * n + j)] - sum) <=
                        tolerance(dtype, k, std::abs(sum)));
              }
          }
}

TEST_CASE("gemm adds a bias to every row before it rounds the result") {
  const auto check = [](DType dtype, DType out, int64_t m, int64_t n, int64_t k, bool accumulate) {
    const Operand a(m, k, dtype, 5), b(n, k, dtype, 6), c(m, n, out, 7), bias(1, n, out, 8);
    // A view with distance between its rows, and what lies between them.
    Tensor wide = Tensor::zeros({m, n + 3}, out), result = wide.slice(1, 0, n);
    cpu::copy(c.tensor, result);
    cpu::gemm(a.tensor, false, b.tensor, true, result, accumulate, bias.tensor.reshape({n}));
    const auto got = as_double(result);
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j) {
        double sum = bias.values[static_cast<size_t>(j)];
        if (accumulate) sum += c.values[static_cast<size_t>(i * n + j)];
        for (int64_t l = 0; l < k; ++l)
          sum += a.values[static_cast<size_t>(i * k + l)] * b.values[static_cast<size_t>(j * k + l)];
        // k products, the bias and what c held: k + 2 terms.
        REQUIRE(std::abs(got[static_cast<size_t>(i * n + j)] - sum) <=
                tolerance(out, k + 2, std::abs(sum)));
      }
    for (const double between : as_double(wide.slice(1, n, n + 3))) REQUIRE(between == 0);
  };
  for (const bool accumulate : {false, true})
    for (const auto& [m, n, k] : {std::tuple<int64_t, int64_t, int64_t>{1, 1, 1},
                                  {3, 5, 7},
                                  {17, 33, 65},
                                  {4, 6, 0}}) {
      for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF64})
        check(dtype, dtype, m, n, k, accumulate);
      check(DType::kBF16, DType::kF32, m, n, k, accumulate);
    }
  Tensor y = Tensor::empty({2, 3}, DType::kF32);
  const Tensor x = Tensor::zeros({2, 4}, DType::kF32), w = Tensor::zeros({3, 4}, DType::kF32);
  CHECK_THROWS_WITH_AS(cpu::gemm(x, false, w, true, y, false, Tensor::zeros({2}, DType::kF32)),
                       doctest::Contains("[gemm] bias"), ShapeError);
  CHECK_THROWS_WITH_AS(cpu::gemm(x, false, w, true, y, false, Tensor::zeros({3}, DType::kBF16)),
                       doctest::Contains("[gemm] bias"), ShapeError);
}

}  // namespace
