#include "optim/clip.h"

#include <limits>

#include "optim_support.h"

namespace {

using namespace lh;
using namespace lh::test;

TEST_CASE("the norm is over all parameters and clipping scales to it") {
  ParameterStore store(DType::kF64, 1);
  Parameter& a = store.create("a", {3}, ParameterKind::kMatrix, Init::constant(0));
  Parameter& b = store.create("b", {2, 2}, ParameterKind::kMatrix, Init::constant(0));
  store.create("none", {5}, ParameterKind::kMatrix, Init::constant(0));
  CHECK(global_grad_norm(store) == 0);
  set_gradient(a, Tensor::from(std::vector<double>{1, 2, 2}, {3}));
  set_gradient(b, Tensor::from(std::vector<double>{0, 4, 0, 0}, {2, 2}));
  CHECK(global_grad_norm(store) == doctest::Approx(5));
  CHECK(clip_factor(1, 5) == doctest::Approx(0.2));
  CHECK(clip_factor(10, 5) == 1);
  CHECK(clip_factor(0, 5) == 1);
  CHECK(clip_factor(1, 0) == 1);
}

TEST_CASE("the first parameter with a bad gradient is named") {
  ParameterStore store(DType::kF32, 1);
  Parameter& a = store.create("a", {3}, ParameterKind::kMatrix, Init::constant(0));
  Parameter& b = store.create("b", {3}, ParameterKind::kMatrix, Init::constant(0));
  set_gradient(a, Tensor::from(std::vector<float>{1, 2, 3}, {3}));
  set_gradient(b, Tensor::from(std::vector<float>{1, 2, 3}, {3}));
  CHECK(!first_non_finite_gradient(store).has_value());
  for (const float bad :
       {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
        std::numeric_limits<float>::quiet_NaN()}) {
    b.variable.grad().span<float>()[1] = bad;
    CHECK(first_non_finite_gradient(store) == 1);
    CHECK(!std::isfinite(global_grad_norm(store)));
  }
  a.variable.grad().span<float>()[2] = std::numeric_limits<float>::quiet_NaN();
  CHECK(first_non_finite_gradient(store) == 0);
}

TEST_CASE("a huge but finite gradient has a finite norm") {
  ParameterStore store(DType::kF32, 1);
  Parameter& a = store.create("a", {2}, ParameterKind::kMatrix, Init::constant(0));
  set_gradient(a, Tensor::from(std::vector<float>{3e30f, 4e30f}, {2}));
  CHECK(global_grad_norm(store) == doctest::Approx(5e30));
}

}  // namespace
