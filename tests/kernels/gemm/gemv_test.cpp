// Products of a few rows against sums in fp64.
#include "kernels/gemm/gemv.h"

#include "kernels/support/harness.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

template <class T>
void gemv_case(int rows, int n, int k, int gap) {
  CAPTURE(rows);
  CAPTURE(n);
  CAPTURE(k);
  const std::size_t stride = static_cast<std::size_t>(k) + gap;
  const auto x = random_values<T>(static_cast<std::size_t>(rows) * k, 1);
  const auto w = random_values<T>(stride * n, 2);
  std::vector<double> want;
  for (int r = 0; r < rows; ++r)
    for (int j = 0; j < n; ++j) {
      double sum = 0;
      for (int i = 0; i < k; ++i)
        sum += static_cast<double>(xpu::to_float(x[r * k + i])) * xpu::to_float(w[j * stride + i]);
      want.push_back(sum);
    }
  Buffer<T> bx(x), bw(w), y(static_cast<std::size_t>(rows) * n);
  kernels::gemv<T>(bx.get(), bw.get(), y.get(), rows, n, k, static_cast<std::int64_t>(stride),
                   nullptr);
  check_close(y.host(), want, kRounding<T>, 1e-4, "y");
}

}  // namespace

TEST_CASE("a few rows times a weight matrix") {
  for_each_mode([] {
    for (const int rows : {1, 2, 3, 5, 8, 11}) {
      gemv_case<float>(rows, 19, 300, 0);
      gemv_case<bf16>(rows, 19, 264, 8);
    }
    gemv_case<bf16>(2, 9, 37, 1);
    gemv_case<float>(1, 1, 1, 0);
  });
}
