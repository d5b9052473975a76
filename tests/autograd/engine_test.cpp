// The tape itself: accumulation, freeing, recomputation, memory.
#include <doctest/doctest.h>

#include "autograd/checkpoint.h"
#include "ops/elementwise.h"
#include "ops/linear.h"
#include "ops/rms_norm.h"
#include "support/gradcheck.h"

namespace {

using namespace lh;
using namespace lh::test;

TEST_CASE("gradients of two backward passes add up until zero_grad") {
  Variable w = Variable::leaf(random_tensor({4}, DType::kF32, 1));
  const Variable x(random_tensor({4}, DType::kF32, 2));
  const Tensor seed = random_tensor({4}, DType::kF32, 3);
  backward(multiply(w, x), seed);
  const std::vector<double> once = to_doubles(w.grad());
  backward(multiply(w, x), seed);
  const std::vector<double> twice = to_doubles(w.grad());
  for (size_t i = 0; i < once.size(); ++i) CHECK(twice[i] == 2 * once[i]);
  w.zero_grad();
  CHECK(!w.grad().defined());
  backward(multiply(w, x), seed);
  CHECK(to_doubles(w.grad()) == once);
}

TEST_CASE("a bf16 leaf collects its gradient in f32") {
  Variable w = Variable::leaf(random_tensor({3, 4}, DType::kBF16, 1));
  const Variable x(random_tensor({2, 4}, DType::kBF16, 2));
  backward(linear(x, w), random_tensor({2, 3}, DType::kBF16, 3));
  CHECK(w.grad().dtype() == DType::kF32);
}

TEST_CASE("a second backward through freed history throws") {
  const Variable w = Variable::leaf(random_tensor({4}, DType::kF32, 1));
  const Variable y = multiply(w, w);
  backward(y, random_tensor({4}, DType::kF32, 2));
  CHECK_THROWS_WITH(backward(y, random_tensor({4}, DType::kF32, 2)),
                    doctest::Contains("already freed"));
}

TEST_CASE("nothing is recorded without a gradient to compute") {
  const Variable w = Variable::leaf(random_tensor({4}, DType::kF32, 1));
  CHECK(!multiply(w.detach(), w.detach()).requires_grad());
  const GradMode off(false);
  CHECK(!multiply(w, w).requires_grad());
}

TEST_CASE("checkpoint gives bitwise the gradient of the plain function and keeps less") {
  const auto run = [](bool recompute, int64_t& kept) {
    const Tensor value = random_tensor({64, 32}, DType::kF32, 1);
    Variable x = Variable::leaf(value);
    std::vector<Variable> weights;
    for (uint64_t i = 0; i < 4; ++i)
      weights.push_back(Variable::leaf(random_tensor({32, 32}, DType::kF32, 10 + i, 0.2)));
    const auto block = [&](std::span<const Variable> in) {
      Variable h = in[0];
      for (const Variable& w : weights) h = add(h, linear(swiglu(linear(h, w), h), w));
      return h;
    };
    const int64_t before = memory_report().total_now;
    const Variable y = recompute ? checkpoint(block, {x}) : block(std::vector<Variable>{x});
    kept = memory_report().total_now - before;
    backward(y, random_tensor({64, 32}, DType::kF32, 2));
    std::vector<std::vector<double>> gradients = {to_doubles(x.grad())};
    for (const Variable& w : weights) gradients.push_back(to_doubles(w.grad()));
    return gradients;
  };
  int64_t kept_plain = 0, kept_checkpoint = 0;
  const auto plain = run(false, kept_plain);
  CHECK(run(true, kept_checkpoint) == plain);
  CHECK(kept_checkpoint * 4 < kept_plain);
}

TEST_CASE("a frozen leaf gets no gradient and what is frozen altogether no history") {
  Variable first = Variable::leaf(random_tensor({8, 8}, DType::kF32, 1, 0.3));
  Variable second = Variable::leaf(random_tensor({8, 8}, DType::kF32, 2, 0.3));
  const Variable x(random_tensor({16, 8}, DType::kF32, 3));
  const Tensor seed = random_tensor({16, 8}, DType::kF32, 4);
  const auto lower = [&](std::span<const Variable> in) { return linear(in[0], first); };
  const auto upper = [&](std::span<const Variable> in) { return linear(in[0], second); };
  for (const bool recompute : {false, true}) {
    const auto apply = [&](const auto& block, const Variable& in) {
      return recompute ? checkpoint(block, {in}) : block(std::vector<Variable>{in});
    };
    for (Variable* frozen : {&first, &second}) {
      CAPTURE(recompute);
      first = Variable::leaf(first.value());
      second = Variable::leaf(second.value());
      Variable& kept = frozen == &first ? second : first;
      backward(upper(std::vector{lower(std::vector{x})}), seed);
      const std::vector<double> want = to_doubles(kept.grad());
      first.zero_grad();
      second.zero_grad();
      frozen->set_frozen(true);
      const Variable middle = apply(lower, x);
      CHECK(middle.requires_grad() == (frozen == &second));
      backward(apply(upper, middle), seed);
      CHECK(!frozen->grad().defined());
      CHECK(to_doubles(kept.grad()) == want);
      kept.set_frozen(true);
      CHECK(!apply(upper, apply(lower, x)).requires_grad());
    }
  }
}

TEST_CASE("memory falls while the backward pass goes on") {
  const Variable w = Variable::leaf(random_tensor({64, 64}, DType::kF32, 1, 0.1));
  Variable h(random_tensor({512, 64}, DType::kF32, 2));
  const int64_t before = memory_report().now[static_cast<int>(MemoryOwner::kActivations)];
  for (int i = 0; i < 10; ++i) h = linear(h, w);
  backward(h, random_tensor({512, 64}, DType::kF32, 3));
  h = Variable();
  const int64_t after = memory_report().now[static_cast<int>(MemoryOwner::kActivations)];
  CHECK(after <= before);
}

TEST_CASE("the observer sees every op forward and backward") {
  std::vector<std::string> seen;
  set_op_observer([&](const char* name, const Tensor&) { seen.emplace_back(name); });
  const Variable w = Variable::leaf(random_tensor({4}, DType::kF32, 1));
  backward(multiply(w, w), random_tensor({4}, DType::kF32, 2));
  set_op_observer(nullptr);
  CHECK(seen == std::vector<std::string>{"multiply", "gradient of multiply",
                                         "gradient of multiply"});
}

TEST_CASE("a watch hears of every leaf after its last use and of none before") {
  const Variable early = Variable::leaf(random_tensor({4, 4}, DType::kF64, 1));
  const Variable tied = Variable::leaf(random_tensor({4, 4}, DType::kF64, 2));
  const Variable inner = Variable::leaf(random_tensor({4, 4}, DType::kF64, 3));
  const Variable late = Variable::leaf(random_tensor({4, 4}, DType::kF64, 4));
  const Variable unused = Variable::leaf(random_tensor({4, 4}, DType::kF64, 5));
  const Variable x(random_tensor({2, 4}, DType::kF64, 6));
  const auto loss = [&](bool recompute) {
    const auto block = [&](std::span<const Variable> in) {
      return linear(linear(in[0], inner), tied);
    };
    Variable h = linear(linear(x, tied), early);
    h = recompute ? checkpoint(block, {h}) : block(std::vector<Variable>{h});
    return linear(h, late);
  };
  for (const bool recompute : {false, true}) {
    for (const Variable& leaf : {early, tied, inner, late}) Variable(leaf).zero_grad();
    backward(loss(false), random_tensor({2, 4}, DType::kF64, 7));
    const std::vector<Variable> leaves = {late, inner, early, tied};  // in the order of their ends
    std::vector<std::vector<double>> want;
    for (const Variable& leaf : leaves) {
      want.push_back(to_doubles(leaf.grad()));
      Variable(leaf).zero_grad();
    }
    std::vector<const LeafGradient*> order;
    BackwardWatch watch;
    watch.reaches = [&](const std::unordered_set<const LeafGradient*>& reached) {
      CHECK(reached.size() == 4);
      CHECK(!reached.contains(unused.leaf_gradient()));
    };
    watch.is_final = [&](const LeafGradient* leaf) {
      REQUIRE(order.size() < 4);
      CHECK(leaf == leaves[order.size()].leaf_gradient());
      CHECK(to_doubles(leaves[order.size()].grad()) == want[order.size()]);
      order.push_back(leaf);
    };
    backward(loss(recompute), random_tensor({2, 4}, DType::kF64, 7), &watch);
    CHECK(order.size() == 4);
    // What was said to be final stays so.
    CHECK_THROWS(backward(loss(false), random_tensor({2, 4}, DType::kF64, 7)));
  }
}

}  // namespace
