#include "tensor/tensor.h"

#include <doctest/doctest.h>

#include <limits>
#include <numeric>

#include "backend/elementwise.h"

namespace {

using namespace lh;

Tensor counting(const Shape& shape) {
  std::vector<int64_t> values(static_cast<size_t>(shape.numel()));
  std::iota(values.begin(), values.end(), 0);
  return Tensor::from(values, shape);
}

TEST_CASE("views share storage and see the right elements") {
  const Tensor t = counting({2, 3, 4});
  const Tensor view = t.slice(1, 1, 3).transpose(0, 2);  // [4, 2, 2]
  CHECK(view.shape() == Shape({4, 2, 2}));
  CHECK(view.shares_storage(t));
  CHECK(!view.is_contiguous());
  Tensor packed = Tensor::empty(view.shape(), DType::kI64);
  cpu::copy(view, packed);
  for (int64_t i = 0; i < 4; ++i)
    for (int64_t j = 0; j < 2; ++j)
      for (int64_t k = 0; k < 2; ++k)
        CHECK(packed.span<int64_t>()[static_cast<size_t>((i * 2 + j) * 2 + k)] ==
              k * 12 + (j + 1) * 4 + i);
  t.data<int64_t>()[4] = 99;
  CHECK(view.data<int64_t>()[0] == 99);
}

TEST_CASE("copies between any two layouts move every element to its place") {
  const Tensor from = counting({3, 5, 2}).transpose(0, 1);
  Tensor store = Tensor::zeros({5, 2, 3}, DType::kF32);
  Tensor into = store.transpose(1, 2);
  cpu::copy(from, into);
  for (int64_t i = 0; i < 5; ++i)
    for (int64_t j = 0; j < 3; ++j)
      for (int64_t k = 0; k < 2; ++k)
        CHECK(store.span<float>()[static_cast<size_t>((i * 2 + k) * 3 + j)] ==
              static_cast<float>(j * 10 + i * 2 + k));
}

TEST_CASE("reshape infers one size and refuses what does not fit") {
  const Tensor t = counting({4, 6});
  CHECK(t.reshape({-1, 8}).shape() == Shape({3, 8}));
  CHECK_THROWS(t.reshape({5, 5}));
  CHECK_THROWS(t.reshape({-1, -1}));
  CHECK_THROWS(t.transpose(0, 1).reshape({24}));
}

TEST_CASE("slices outside and wrong dtypes are refused") {
  const Tensor t = counting({4, 6});
  CHECK_THROWS(t.slice(0, 2, 5));
  CHECK_THROWS(t.slice(0, 3, 2));
  CHECK_THROWS(t.slice(0, -1, 2));
  CHECK_THROWS(t.data<float>());
  CHECK_THROWS(t.item());
  CHECK_THROWS(t.transpose(0, 1).span<int64_t>());
  CHECK(t.slice(0, 2, 2).numel() == 0);
}

TEST_CASE("shapes whose size overflows are refused") {
  const int64_t huge = std::numeric_limits<int64_t>::max() / 2;
  CHECK_THROWS(Tensor::empty({huge, 4}, DType::kF32));
  CHECK_THROWS(Tensor::empty({huge}, DType::kF64));
  CHECK_THROWS(Tensor::empty({-1}, DType::kF32));
}

TEST_CASE("messages say dtype shape and place") {
  CHECK(counting({2, 3}).str() == "i64[2, 3] on cpu");
  CHECK_THROWS_WITH_AS(check_shape(counting({2, 3}), {3, 2}, "op", "x"),
                       doctest::Contains("[op] x: expected"), ShapeError);
}

TEST_CASE("sole ownership ends with the first other handle") {
  const Tensor t = counting({2});
  CHECK(t.is_sole_owner());
  {
    const Tensor view = t.slice(0, 0, 1);
    CHECK(!t.is_sole_owner());
  }
  CHECK(t.is_sole_owner());
}

}  // namespace
