// Cross-entropy rows against the formula in fp64 and central differences.
#include "kernels/loss/cross_entropy.h"

#include <cmath>

#include "kernels/support/harness.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

double loss_of(const std::vector<double>& z, int target) {
  double top = z[0], sum = 0;
  for (const double x : z) top = std::max(top, x);
  for (const double x : z) sum += std::exp(x - top);
  return std::log(sum) + top - z[target];
}

template <class T>
void rows_case(int rows, int vocab, float spread, std::size_t offset = 0) {
  CAPTURE(rows);
  CAPTURE(vocab);
  const double logit_scale = 0.7;
  const auto logits = random_values<float>(static_cast<std::size_t>(rows) * vocab, 1, spread);
  std::vector<std::int32_t> targets(rows);
  for (int r = 0; r < rows; ++r) targets[r] = r % 3 == 2 ? -1 : r * 31 % vocab;
  std::vector<double> losses, gradient;
  for (int r = 0; r < rows; ++r) {
    std::vector<double> z(vocab);
    for (int i = 0; i < vocab; ++i)
      z[i] = logit_scale * logits[static_cast<std::size_t>(r) * vocab + i];
    losses.push_back(targets[r] < 0 ? 0 : loss_of(z, targets[r]));
    double top = z[0], sum = 0;
    for (const double x : z) top = std::max(top, x);
    for (const double x : z) sum += std::exp(x - top);
    for (int i = 0; i < vocab; ++i)
      gradient.push_back(targets[r] < 0 ? 0
                                        : (std::exp(z[i] - top) / sum - (i == targets[r] ? 1 : 0)) *
                                              logit_scale);
  }
  Buffer<float> bl(logits, offset), out(rows);
  Buffer<std::int32_t> bt(targets);
  Buffer<T> dl(logits.size(), offset);
  kernels::CrossEntropyParams<T> p;
  p.logits = bl.get();
  p.targets = bt.get();
  p.losses = out.get();
  p.logit_scale = static_cast<float>(logit_scale);
  p.rows = rows;
  p.vocab = vocab;
  kernels::cross_entropy(p, nullptr);  // loss alone
  check_close(out.host(), losses, 2e-6, 2e-6, "loss");
  p.d_logits = dl.get();
  kernels::cross_entropy(p, nullptr);
  check_close(out.host(), losses, 2e-6, 2e-6, "loss");
  check_close(dl.host(), gradient, kRounding<T> + 1e-5, 1e-7, "gradient");
  if constexpr (sizeof(T) == 4) {
    p.d_logits = bl.get();
    kernels::cross_entropy(p, nullptr);
    check_close(out.host(), losses, 2e-6, 2e-6, "loss in place");
    check_close(bl.host(), gradient, 1e-5, 1e-7, "gradient in place");
  }

  // The same over chunks of columns.
  for (const int columns : {vocab, (vocab + 2) / 3, 64}) {
    CAPTURE(columns);
    Buffer<float> top(rows), sum(rows), of_target(rows), chunked(rows);
    const kernels::SoftmaxStatistics statistics{top.get(), sum.get(), of_target.get()};
    const auto each_chunk = [&](const auto& function) {
      for (int first = 0; first < vocab; first += columns) {
        const int count = std::min(columns, vocab - first);
        std::vector<float> part;
        for (int r = 0; r < rows; ++r) {
          const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(r) * vocab + first;
          part.insert(part.end(), begin, begin + count);
        }
        Buffer<float> values(part);
        function(kernels::SoftmaxChunk{values.get(), bt.get(), static_cast<float>(logit_scale), rows,
                                       count, first, vocab});
      }
    };
    each_chunk([&](const kernels::SoftmaxChunk& c) { softmax_statistics(c, statistics, nullptr); });
    kernels::cross_entropy_losses(statistics, bt.get(), chunked.get(), rows, nullptr);
    check_close(chunked.host(), losses, 2e-6, 2e-6, "loss by chunks");
    each_chunk([&](const kernels::SoftmaxChunk& c) {
      std::vector<double> want;
      for (int r = 0; r < rows; ++r) {
        const auto begin = gradient.begin() + static_cast<std::ptrdiff_t>(r) * vocab + c.first;
        want.insert(want.end(), begin, begin + c.columns);
      }
      Buffer<T> d(want.size());
      kernels::cross_entropy_gradient(c, statistics, d.get(), nullptr);
      check_close(d.host(), want, kRounding<T> + 1e-5, 1e-7, "gradient by chunks");
    });
  }
}

}  // namespace

TEST_CASE("cross entropy equals the formula for short long and ragged vocabularies") {
  for_each_mode([] {
    for (const int vocab : {1, 5, 64, 1003, 2500}) {
      rows_case<float>(4, vocab, 2.0f);
      rows_case<bf16>(4, vocab, 2.0f);
    }
    rows_case<float>(3, 128, 2.0f, 1);
  });
}

TEST_CASE("large logits neither overflow nor lose the small probabilities") {
  rows_case<float>(2, 300, 60.0f);
}

TEST_CASE("tokens that are ruled out by minus infinity have no probability") {
  for (const int vocab : {3, 8}) {
    std::vector<float> logits(vocab, -INFINITY);
    logits[1] = 0.5f;
    logits[2] = 1.5f;
    Buffer<float> bl(logits), out(1), d(vocab);
    Buffer<std::int32_t> target(std::vector<std::int32_t>{2});
    kernels::CrossEntropyParams<float> p;
    p.logits = bl.get();
    p.targets = target.get();
    p.losses = out.get();
    p.d_logits = d.get();
    p.rows = 1;
    p.vocab = vocab;
    kernels::cross_entropy(p, nullptr);
    const double share = std::exp(0.5) / (std::exp(0.5) + std::exp(1.5));
    std::vector<double> want(vocab, 0);
    want[1] = share;
    want[2] = -share;
    check_close(out.host(), {-std::log(1 - share)}, 1e-6, 0, "loss");
    check_close(d.host(), want, 1e-5, 0, "gradient");
  }
}

TEST_CASE("the gradient is that of central differences") {
  const int vocab = 9;
  const auto logits = random_values<float>(vocab, 3);
  Buffer<float> bl(logits), out(1), dl(vocab);
  Buffer<std::int32_t> bt(std::vector<std::int32_t>{4});
  kernels::CrossEntropyParams<float> p;
  p.logits = bl.get();
  p.targets = bt.get();
  p.losses = out.get();
  p.d_logits = dl.get();
  p.rows = 1;
  p.vocab = vocab;
  kernels::cross_entropy(p, nullptr);
  std::vector<double> want;
  for (int i = 0; i < vocab; ++i) {
    auto plus = to_double(logits), minus = plus;
    plus[i] += 1e-5;
    minus[i] -= 1e-5;
    want.push_back((loss_of(plus, 4) - loss_of(minus, 4)) / 2e-5);
  }
  check_close(dl.host(), want, 1e-5, 1e-6, "gradient");
}

TEST_CASE("NaN logits and targets outside the vocabulary give NaN losses") {
  Buffer<float> logits(std::vector<float>{0, NAN, 1, 0, 0, 0}), out(2);
  Buffer<std::int32_t> targets(std::vector<std::int32_t>{0, 3});
  kernels::CrossEntropyParams<float> p;
  p.logits = logits.get();
  p.targets = targets.get();
  p.losses = out.get();
  p.rows = 2;
  p.vocab = 3;
  kernels::cross_entropy(p, nullptr);
  CHECK(std::isnan(out.host()[0]));
  CHECK(std::isnan(out.host()[1]));
}
