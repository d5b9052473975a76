// The sum of squares over lists of tensors against fp64 loops.
#include "kernels/reduce/list_norm.h"

#include <cmath>
#include <memory>

#include "kernels/support/harness.h"

using namespace lh;
using namespace lh::test;

namespace {

double norm_of(const std::vector<std::vector<float>>& values, const std::vector<std::size_t>& offsets) {
  std::vector<std::unique_ptr<Buffer<float>>> buffers;
  std::vector<kernels::NormTensor> list;
  std::int64_t chunks = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    buffers.push_back(std::make_unique<Buffer<float>>(values[i], offsets[i]));
    const auto n = static_cast<std::int64_t>(values[i].size());
    list.push_back({buffers.back()->get(), n, chunks});
    chunks += kernels::chunks_of(n);
  }
  const Buffer<kernels::NormTensor> tensors(list);
  const Buffer<double> out(1), workspace(static_cast<std::size_t>(chunks));
  kernels::list_sum_of_squares(tensors.get(), static_cast<int>(list.size()), chunks, out.get(),
                               workspace.get(), nullptr);
  return out.host()[0];
}

}  // namespace

TEST_CASE("the sum over a list is that of all its elements, bitwise the same in every order") {
  const std::vector<std::size_t> offsets = {0, 1, 0, 3, 0};
  std::vector<std::vector<float>> values;
  double want = 0;
  for (const std::size_t n : {1, 1001, 36001, 6, 16384}) {
    values.push_back(random_values<float>(n, static_cast<unsigned>(n)));
    for (const float x : values.back()) want += static_cast<double>(x) * x;
  }
  double first = 0;
  for_each_mode(
      [&] {
        const double got = norm_of(values, offsets);
        CHECK(got == doctest::Approx(want).epsilon(1e-13));
        if (first == 0) first = got;
        CHECK(got == first);
      },
      true);
}

TEST_CASE("huge elements have a finite sum and a bad one makes it not finite") {
  for_each_mode([] {
    CHECK(norm_of({{3e30f, 4e30f}, {0}}, {0, 0}) == doctest::Approx(25e60).epsilon(1e-6));
    for (const float bad : {INFINITY, -INFINITY, NAN}) {
      std::vector<float> values(2000, 1.0f);
      values[1999] = bad;
      CHECK(!std::isfinite(norm_of({{1}, values}, {0, 0})));
    }
    CHECK(norm_of({}, {}) == 0);
  });
}
