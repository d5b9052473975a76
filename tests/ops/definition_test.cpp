// Plain ops, and attention's definitions made of them, on the CPU.
#include "definition_cases.h"
#include "ops/elementwise.h"
#include "ops/matmul.h"
#include "ops/slice.h"
#include "ops/masked_softmax.h"
#include "support/gradcheck.h"

namespace {

using namespace lh;
using namespace lh::test;

Tensor random(const Shape& shape, uint64_t seed) {
  return random_tensor(shape, DType::kF64, seed);
}

TEST_CASE("matmul masked_softmax slice and concat have the gradient of central differences") {
  check_gradients([](const auto& in) { return matmul(in[0], in[1]); },
                  {random({3, 4}, 1), random({4, 5}, 2)});
  check_gradients([](const auto& in) { return matmul(in[0], in[1], true); },
                  {random({3, 4}, 1), random({5, 4}, 2)});
  check_gradients([](const auto& in) { return matmul(in[0], in[0], true); }, {random({3, 4}, 1)});
  const Tensor mask = random({3, 5}, 2);
  check_gradients([&](const auto& in) { return masked_softmax(in[0], mask); }, {random({3, 5}, 1)});
  for (const int dim : {0, 1, 2})
    check_gradients(
        [dim](const auto& in) {  // parts that overlap
          return concat({slice(in[0], dim, 0, 2), in[1], slice(in[0], dim, 1, 3)}, dim);
        },
        {random({3, 3, 3}, 1), random({3, 3, 3}, 2)});
}

TEST_CASE("masked_softmax of rows with elements of -inf") {
  const double closed = -std::numeric_limits<double>::infinity();
  const Variable x =
      Variable::leaf(Tensor::from(std::vector<double>{5, 0, std::log(3.0), 1, 2, closed}, {2, 3}));
  const Variable p = masked_softmax(
      x, Tensor::from(std::vector<double>{closed, 0, 0, closed, closed, 0}, {2, 3}));
  CHECK(to_doubles(p.value()) == std::vector<double>{0, 0.25, 0.75, 0, 0, 0});
  backward(p, Tensor::from(std::vector<double>{1, 1, 0, 1, 2, 3}, {2, 3}));
  CHECK(to_doubles(x.grad()) == std::vector<double>{0, 0.25 * 0.75, -0.75 * 0.25, 0, 0, 0});
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double bad : {nan, -closed}) {
    const auto seen = to_doubles(
        masked_softmax(Variable(Tensor::from(std::vector<double>{bad, 1, 2}, {1, 3})),
                       Tensor::from(std::vector<double>{0, 0, closed}, {1, 3})).value());
    for (const double value : seen) CHECK(std::isnan(value));
  }
  const Tensor want = Tensor::from(std::vector<double>{1, 2, 3}, {3});
  CHECK(!(worst(Tensor::from(std::vector<double>{1, nan, 3}, {3}), want) < 1));  // the check itself sees them
  CHECK_THROWS_AS(concat({Variable(random({2, 3}, 1)), Variable(random({2, 4}, 1))}, 0), ShapeError);
  CHECK_THROWS_AS(matmul(Variable(random({2, 3}, 1)), Variable(random({2, 4}, 1))), ShapeError);
}

TEST_CASE("definitions have the gradient of central differences") {
  auto plan = std::make_shared<AttentionPlan>();
  plan->segments = {{1, 3, 0, 4, 1}, {4, 2, 3, 2, 0}};
  plan->mask = {3, 1, 1};
  plan->scale = 0.4;
  const Tensor q = random({7, 4, 3}, 1), k = random({5, 2, 3}, 2), v = random({5, 2, 4}, 3);
  check_gradients(
      [&](const auto& in) { return attention_definition(in[0], in[1], in[2], *plan, in[3]); },
      {q, k, v, random({5, 2}, 4)});
  check_gradients(
      [&](const auto& in) { return parallax_definition(in[0], in[1], in[2], in[3], *plan).out; },
      {q, random({7, 4, 3}, 5), k, v});
}

TEST_CASE("attention and parallax equal their definitions") {
  check_definitions(DType::kF64, kCpuDevice, 1e-11);
  check_definitions(DType::kF32, kCpuDevice, 2e-5);
  // Results are rounded to 8 bits, and so are weights on their way into products.
  check_definitions(DType::kBF16, kCpuDevice, 2e-2);
}

TEST_CASE("the switch takes the definitions in") {
  auto plan = std::make_shared<AttentionPlan>();
  plan->segments = {{0, 40, 0, 40, 0}};
  const Variable q(random_tensor({40, 4, 8}, DType::kF32, 1)), k(random_tensor({40, 2, 8}, DType::kF32, 2));
  const auto both = [&] {
    return std::pair{to_doubles(attention(q, k, k, plan).value()),
                     to_doubles(parallax_attention(q, q, k, k, plan).out.value())};
  };
  choose_definitions(true);
  const auto chosen = both();
  choose_definitions(false);
  CHECK(chosen.first == to_doubles(attention_definition(q, k, k, *plan).value()));
  CHECK(chosen.second == to_doubles(parallax_definition(q, q, k, k, *plan).out.value()));
  CHECK(chosen != both());  // f64 inside, so not the same bits
}

}  // namespace
