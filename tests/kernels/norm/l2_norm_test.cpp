// L2 normalisation against the formula in fp64 and central differences.
#include "kernels/norm/l2_norm.h"

#include "kernels/support/harness.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

std::vector<double> normalised(const std::vector<double>& x, int dim, double eps) {
  std::vector<double> y = x;
  for (std::size_t r = 0; r < x.size(); r += dim) {
    double sum = 0;
    for (int i = 0; i < dim; ++i) sum += x[r + i] * x[r + i];
    for (int i = 0; i < dim; ++i) y[r + i] /= std::max(std::sqrt(sum), eps);
  }
  return y;
}

template <class T>
void case_of(int rows, int dim, double eps) {
  CAPTURE(rows);
  CAPTURE(dim);
  const std::size_t n = static_cast<std::size_t>(rows) * dim;
  const auto x = random_values<T>(n, 1), dy = random_values<T>(n, 2);
  Buffer<T> bx(x), by(n), bdy(dy), bdx(n);
  Buffer<float> inverse(rows);
  kernels::l2_norm_fwd<T>({bx.get(), by.get(), inverse.get(), rows, dim, static_cast<float>(eps)},
                          nullptr);
  const auto xd = to_double(x), dyd = to_double(dy);
  check_close(by.host(), normalised(xd, dim, eps), kRounding<T>, 1e-6, "y");
  kernels::l2_norm_bwd<T>(
      {bdy.get(), bx.get(), inverse.get(), bdx.get(), rows, dim, static_cast<float>(eps)}, nullptr);
  std::vector<double> want(n);
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t row = i / dim * dim;
    const std::vector<double> part(xd.begin() + row, xd.begin() + row + dim);
    auto plus = part, minus = part;
    plus[i - row] += 1e-5;
    minus[i - row] -= 1e-5;
    const auto a = normalised(plus, dim, eps), b = normalised(minus, dim, eps);
    for (int j = 0; j < dim; ++j) want[i] += (a[j] - b[j]) / 2e-5 * dyd[row + j];
  }
  check_close(bdx.host(), want, kRounding<T>, sizeof(T) == 2 ? 1e-4 : 3e-6, "dx");
}

}  // namespace

TEST_CASE("l2 norm and its gradient, also of rows shorter than eps") {
  for_each_mode([] {
    for (const int dim : {1, 7, 64, 128, 130}) {
      case_of<float>(9, dim, 1e-6);
      case_of<bf16>(9, dim, 1e-6);
    }
    case_of<float>(3, 16, 100.0);
  });
}
