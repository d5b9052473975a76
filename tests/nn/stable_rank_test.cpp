#include "nn/stable_rank.h"

#include <doctest/doctest.h>

#include <cmath>

#include "support/compare.h"

namespace {

using namespace lh;
using namespace lh::test;

TEST_CASE("the stable rank of a matrix with known singular values") {
  // Rotations on both sides leave diag(3, 2, 1, 0.5) its singular values.
  const double values[4] = {3, 2, 1, 0.5};
  std::vector<double> a(16);
  for (size_t i = 0; i < 4; ++i) a[i * 4 + i] = values[i];
  for (const auto& [x, y, angle] : {std::tuple{0, 1, 0.4}, {1, 3, 1.1}, {0, 2, -0.8}, {2, 3, 2.0}})
    for (size_t i = 0; i < 4; ++i) {
      const double c = std::cos(angle), s = std::sin(angle);
      for (const auto& [p, q] : {std::pair{&a[static_cast<size_t>(x) * 4 + i], &a[static_cast<size_t>(y) * 4 + i]}}) {
        const double u = *p, v = *q;
        *p = c * u - s * v;
        *q = s * u + c * v;
      }
    }
  for (const DType dtype : {DType::kF64, DType::kF32})
    CHECK(stable_rank(from_doubles(a, {4, 4}, dtype)) ==
          doctest::Approx((9 + 4 + 1 + 0.25) / 9).epsilon(1e-6));
}

TEST_CASE("the stable rank of simple matrices") {
  CHECK(stable_rank(Tensor::zeros({3, 5}, DType::kF32)) == 0);
  // Equal singular values: the rank itself.
  std::vector<double> identity(5 * 3);
  for (size_t i = 0; i < 3; ++i) identity[i * 3 + i] = -2;
  CHECK(stable_rank(from_doubles(identity, {5, 3}, DType::kF32)) == doctest::Approx(3));
  // One direction.
  std::vector<double> outer;
  for (int i = 1; i <= 6; ++i)
    for (int j = 1; j <= 4; ++j) outer.push_back(i * (j - 2.5));
  CHECK(stable_rank(from_doubles(outer, {6, 4}, DType::kF64)) == doctest::Approx(1));
  // A Gaussian matrix: ||w||_F^2 = m n, ||w||_2 about sqrt(m) + sqrt(n).
  const double wide = stable_rank(random_tensor({256, 128}, DType::kF32, 3));
  CHECK(wide == doctest::Approx(256 * 128 / std::pow(16 + std::sqrt(128.0), 2)).epsilon(0.05));
  CHECK_THROWS_AS(stable_rank(Tensor::zeros({3}, DType::kF32)), ShapeError);
}

TEST_CASE("the stable rank of a matrix whose singular values lie close") {
  for (const double gap : {1e-2, 1e-4, 1e-6}) {
    constexpr int64_t kRows = 300, kCols = 200;
    Tensor w = Tensor::zeros({kRows, kCols}, DType::kF64);
    double squares = 0;
    for (int64_t i = 0; i < kCols; ++i) {
      const double value = 1 - gap * static_cast<double>(i * i) / kCols;
      w.data<double>()[(i + 50) * kCols + i] = value;
      squares += value * value;
    }
    CHECK(stable_rank(w) == doctest::Approx(squares).epsilon(1e-6));
  }
}

}  // namespace
