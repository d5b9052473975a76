// Sums against fp64 loops; bad values are counted.
#include "kernels/reduce/reduce.h"

#include <cmath>

#include "kernels/support/harness.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

template <class T>
void sums_case(std::size_t n, std::size_t offset) {
  CAPTURE(n);
  const auto x = random_values<T>(n, 1);
  Buffer<T> bx(x, offset);
  Buffer<double> out(std::vector<double>{2.0}), work(kernels::kReduceWorkspace);
  double sum = 0, squares = 0;
  for (const T v : x) {
    sum += xpu::to_float(v);
    squares += std::pow(static_cast<double>(xpu::to_float(v)), 2);
  }
  const auto size = static_cast<std::int64_t>(n);
  using kernels::Reduction;
  kernels::reduce<T>(Reduction::kSum, bx.get(), size, true, out.get(), work.get(), nullptr);
  CHECK(out.host()[0] == doctest::Approx(2.0 + sum).epsilon(1e-6));
  kernels::reduce<T>(Reduction::kSumOfSquares, bx.get(), size, false, out.get(), work.get(),
                     nullptr);
  CHECK(out.host()[0] == doctest::Approx(squares).epsilon(1e-6));
}

}  // namespace

TEST_CASE("sums over vectors of every size") {
  for_each_mode([] {
    for (const std::size_t n : {1, 9, 1000, 20001}) {
      sums_case<float>(n, 0);
      sums_case<bf16>(n, 0);
    }
    sums_case<float>(1000, 1);
    sums_case<bf16>(1000, 1);
    Buffer<double> out(std::vector<double>{5.0}), work(kernels::kReduceWorkspace);
    Buffer<float> none(1);
    kernels::reduce<float>(kernels::Reduction::kSum, none.get(), 0, true, out.get(), work.get(),
                           nullptr);
    CHECK(out.host()[0] == 5.0);
  });
}

TEST_CASE("every NaN and infinity is counted") {
  for_each_mode([] {
    auto x = random_values<float>(3001, 2);
    x[0] = NAN;
    x[1500] = INFINITY;
    x[3000] = -INFINITY;
    x[7] = 3.4e38f;
    Buffer<float> bx(x);
    Buffer<std::int64_t> out(1);
    Buffer<double> work(kernels::kReduceWorkspace);
    kernels::count_non_finite<float>(bx.get(), 3001, out.get(), work.get(), nullptr);
    CHECK(out.host()[0] == 3);
  });
}
