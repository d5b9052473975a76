// Losses over a language-model head against the textbook formulas in double, for every cut into chunks.
#include "head_loss_test.h"

#include "runtime/memory.h"
#include "support/gradcheck.h"

using namespace lh;
using namespace lh::test;

TEST_CASE("head losses and both gradients equal the formulas in double for any cut") {
  const std::vector<int64_t> vocabularies = {1, 5, 16, 129, 1000};
  check_head_losses({DType::kF64, 1e-13, 1e-13}, kCpuDevice, vocabularies);
  check_head_losses({DType::kF32, 4e-6, 4e-6}, kCpuDevice, vocabularies);
  check_head_losses({DType::kBF16, 1e-5, 8e-3}, kCpuDevice, vocabularies);
}

TEST_CASE("linear_kl has the gradient of central differences") {
  const Tensor targets = Tensor::from(std::vector<int32_t>{0, -1, 0, 0}, {4});
  const Teacher teacher{random_tensor({4, 7}, DType::kF64, 9)};
  for (const HeadChunks& chunks : {HeadChunks{4, 7}, HeadChunks{3, 2}})
    check_gradients(
        [&](const auto& in) {
          return linear_kl(in[0], in[1], teacher, targets, 1.7, 0.6, chunks).loss_sum;
        },
        {random_tensor({4, 3}, DType::kF64, 1), random_tensor({7, 3}, DType::kF64, 2)});
}

TEST_CASE("a student equal to its teacher has no divergence and no gradient") {
  const Tensor x = random_tensor({6, 8}, DType::kF32, 1), w = random_tensor({40, 8}, DType::kF32, 2);
  const Variable vx = Variable::leaf(x), vw = Variable::leaf(w);
  const Tensor targets = Tensor::zeros({6}, DType::kI32);
  const auto result = linear_kl(vx, vw, {Tensor(), x, w}, targets, 2, 1, HeadChunks{4, 16});
  backward(result.loss_sum);
  for (const double loss : to_doubles(result.losses)) CHECK(std::abs(loss) < 1e-5);
  for (const double d : to_doubles(vx.grad())) CHECK(std::abs(d) < 1e-5);
}

TEST_CASE("tokens that minus infinity rules out cost nothing in either chunk") {
  std::vector<float> logits(12, -INFINITY);
  logits[1] = 0.5F;
  logits[8] = 1.5F;
  const Variable x(Tensor::from(std::vector<float>{1}, {1, 1}));
  std::vector<float> flat(12, 0.0F);
  const Variable w(Tensor::from(flat, {12, 1}));
  const double p = 1 / (1 + std::exp(1.0));
  const auto result = linear_kl(x, w, {Tensor::from(logits, {1, 12})},
                                Tensor::zeros({1}, DType::kI32), 1, 1, HeadChunks{1, 4});
  CHECK(to_doubles(result.losses)[0] ==
        doctest::Approx(p * std::log(12 * p) + (1 - p) * std::log(12 * (1 - p))));
}

TEST_CASE("logits far beyond the range of exp give finite losses") {
  const Variable x(Tensor::from(std::vector<float>{300, -300}, {2, 1}));
  const Variable w(Tensor::from(std::vector<float>{1, -1, 0}, {3, 1}));
  const Tensor targets = Tensor::from(std::vector<int32_t>{0, 0}, {2});
  for (const int64_t columns : {3, 1}) {
    const auto losses = to_doubles(linear_cross_entropy(x, w, targets, 1, HeadChunks{2, columns}).losses);
    CHECK(losses == std::vector<double>{0, 600});
  }
}

TEST_CASE("what a loss holds at a time does not grow with tokens or vocabulary") {
  const auto peak = [](int64_t rows, int64_t vocab, int64_t budget, bool learned_head) {
    const Variable x = Variable::leaf(random_tensor({rows, 4}, DType::kF32, 1));
    Variable w = Variable::leaf(random_tensor({vocab, 4}, DType::kF32, 2));
    w.set_frozen(!learned_head);
    const Tensor targets = Tensor::zeros({rows}, DType::kI32);
    const auto cut = head_chunks(rows, vocab, 4, budget, 16);
    reset_memory_peak();
    const int64_t before = memory_report().total_now;
    const auto result = linear_cross_entropy(x, w, targets, 1, cut);
    // Losses and gradients stay.
    const int64_t kept = (rows + rows * 4 + (learned_head ? vocab * 4 : 0)) * 4;
    return memory_report().total_peak - before - kept;
  };
  for (const auto& [rows, vocab] : {std::pair{64, 30000}, {2000, 700}, {700, 20000}}) {
    CAPTURE(rows);
    CAPTURE(vocab);
    // One block of logits, and the matrix product's own scratch memory, which is smaller; all
    // logits are 5 to 53 MiB.
    for (const bool learned_head : {true, false}) CHECK(peak(rows, vocab, 1 << 20, learned_head) < 2 << 20);
  }
}

TEST_CASE("the cut fits its budget and covers everything") {
  for (const int64_t rows : {1, 7, 300, 100000})
    for (const int64_t vocab : {1, 257, 50257, 2000000})
      for (const int64_t budget : {1 << 16, 1 << 25}) {
        const HeadChunks cut = head_chunks(rows, vocab, 4, budget, 16);
        CAPTURE(rows);
        CAPTURE(vocab);
        CHECK(cut.tokens >= 1);
        CHECK(cut.columns >= 1);
        CHECK(cut.columns <= vocab);
        // 16 tokens and 64 columns are the least that makes a product worth its call.
        CHECK(cut.tokens * cut.columns * 4 <= std::max<int64_t>(budget, 16 * 64 * 4));
      }
  CHECK(head_chunks(4096, 50257, 4, int64_t{256} << 20, 256).whole_vocabulary(50257));
}

TEST_CASE("heads that do not fit are refused with the op and the tensors") {
  const Variable x(random_tensor({2, 4}, DType::kF32, 1)), w(random_tensor({3, 4}, DType::kF32, 2));
  const Tensor bad = Tensor::from(std::vector<int32_t>{0, 3}, {2});
  for (const int64_t columns : {3, 2})
    CHECK_THROWS_WITH_AS(linear_cross_entropy(x, w, bad, 1, HeadChunks{2, columns}),
                         doctest::Contains("target 3 at row 1"), ShapeError);
  const Tensor good = Tensor::zeros({2}, DType::kI32);
  CHECK_THROWS_WITH_AS(linear_kl(x, w, {}, good), doctest::Contains("neither logits nor hidden"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(linear_kl(x, w, {random_tensor({2, 4}, DType::kF32, 1)}, good),
                       doctest::Contains("teacher's logits"), ShapeError);
  CHECK_THROWS_WITH_AS(linear_kl(x, w, {random_tensor({2, 3}, DType::kF32, 1)}, good, 0),
                       doctest::Contains("temperature"), ShapeError);
}
