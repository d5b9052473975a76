// Every differentiable op against central differences in fp64.
#include <doctest/doctest.h>

#include "ops/attention.h"
#include "ops/elementwise.h"
#include "ops/embedding.h"
#include "ops/linear.h"
#include "ops/linear_cross_entropy.h"
#include "ops/lla_attention.h"
#include "ops/parallax_attention.h"
#include "ops/reshape.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"
#include "support/gradcheck.h"

namespace {

using namespace lh;
using namespace lh::test;

Tensor random(const Shape& shape, uint64_t seed) {
  return random_tensor(shape, DType::kF64, seed);
}

TEST_CASE("linear with bias has the gradient of central differences") {
  check_gradients([](const auto& in) { return linear(in[0], in[1], in[2]); },
                  {random({5, 4}, 1), random({3, 4}, 2), random({3}, 3)});
}

TEST_CASE("rms_norm has the gradient of central differences") {
  check_gradients([](const auto& in) { return rms_norm(in[0], in[1], 1e-5); },
                  {random({4, 2, 6}, 1), random({6}, 2)});
}

TEST_CASE("a cheap result that a later op keeps is recomputed and gives the same gradient") {
  check_gradients(
      [](const auto& in) {
        return linear(swiglu(rms_norm(in[0], in[1], 1e-5), in[0]), in[2]);
      },
      {random({3, 6}, 1), random({6}, 2), random({4, 6}, 3)});
}

TEST_CASE("elementwise ops have the gradient of central differences") {
  const std::vector<Tensor> two = {random({3, 5}, 1), random({3, 5}, 2)};
  check_gradients([](const auto& in) { return add(in[0], in[1], 0.5, -2); }, two);
  check_gradients([](const auto& in) { return multiply(in[0], in[1]); }, two);
  check_gradients([](const auto& in) { return swiglu(in[0], in[1]); }, two);
  check_gradients([](const auto& in) { return sigmoid_gate(in[0], in[1]); }, two);
  check_gradients([](const auto& in) { return scale(reshape(in[0], {5, 3}), 3); },
                  {random({3, 5}, 3)});
}

TEST_CASE("a value used twice receives the sum of both gradients") {
  check_gradients([](const auto& in) { return add(multiply(in[0], in[0]), in[0]); },
                  {random({7}, 1)});
}

TEST_CASE("rope has the gradient of central differences") {
  const Tensor table = random({8, 6}, 5);
  const Tensor positions = Tensor::from(std::vector<int32_t>{0, 3, 7}, {3});
  check_gradients([&](const auto& in) { return rope(in[0], table, positions); },
                  {random({3, 2, 6}, 1)});
}

TEST_CASE("embedding with repeated ids has the gradient of central differences") {
  const Tensor ids = Tensor::from(std::vector<int32_t>{2, 0, 2, 2, 4}, {5});
  check_gradients([&](const auto& in) { return embedding(in[0], ids, 1.5); }, {random({5, 3}, 1)});
}

TEST_CASE("attention over packed segments has the gradient of central differences") {
  for (const int64_t kv_heads : {4, 2, 1}) {
    auto plan = std::make_shared<AttentionPlan>();
    plan->segments = {{0, 3, 0, 3, 0}, {3, 5, 3, 5, 0}};
    plan->mask = {kv_heads == 2 ? 3 : 0, kv_heads == 2 ? 1 : 0};
    plan->scale = 0.4;
    check_gradients([&](const auto& in) { return attention(in[0], in[1], in[2], plan); },
                    {random({8, 4, 6}, 1), random({8, kv_heads, 6}, 2), random({8, kv_heads, 5}, 3)});
  }
}

TEST_CASE("parallax and local linear attention have the gradient of central differences") {
  for (const int64_t kv_heads : {4, 2, 1}) {
    auto plan = std::make_shared<AttentionPlan>();
    plan->segments = {{0, 3, 0, 3, 0}, {3, 5, 3, 5, 0}};
    plan->mask = {kv_heads == 2 ? 3 : 0, kv_heads == 2 ? 1 : 0};
    plan->scale = 0.4;
    check_gradients(
        [&](const auto& in) { return parallax_attention(in[0], in[1], in[2], in[3], plan).out; },
        {random({8, 4, 6}, 1), random({8, 4, 6}, 4), random({8, kv_heads, 6}, 2),
         random({8, kv_heads, 5}, 3)});
    for (const double ridge : {0.3, 10.0})
      check_gradients(
          [&](const auto& in) { return lla_attention(in[0], in[1], in[2], plan, {ridge, false}); },
          {random({8, 4, 6}, 1), random({8, kv_heads, 6}, 2), random({8, kv_heads, 5}, 3)});
  }
}

TEST_CASE("linear_cross_entropy has the gradient of central differences") {
  const Tensor targets = Tensor::from(std::vector<int32_t>{1, -1, 6, 0}, {4});
  check_gradients(
      [&](const auto& in) { return linear_cross_entropy(in[0], in[1], targets, 0.7).loss_sum; },
      {random({4, 3}, 1), random({7, 3}, 2)});
}

TEST_CASE("shapes that do not fit are refused with the op and both facts") {
  const Variable x(random({2, 3}, 1)), w(random({4, 5}, 2));
  CHECK_THROWS_WITH_AS(linear(x, w), doctest::Contains("[linear] expected x [n, in]"), ShapeError);
  CHECK_THROWS_AS(add(x, w), ShapeError);
  CHECK_THROWS_AS(rms_norm(x, w, 1e-5), ShapeError);
}

}  // namespace
