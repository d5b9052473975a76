// Chunked linear + cross-entropy against the textbook formula in double on the same rounded inputs.
#include "backend/loss.h"

#include <doctest/doctest.h>

#include <cmath>

#include "backend/elementwise.h"
#include "base/philox.h"

namespace {

using namespace lh;

Tensor random_matrix(int64_t rows, int64_t cols, double size, DType dtype, uint64_t seed) {
  Philox random(seed);
  Tensor wide = Tensor::empty({rows, cols}, DType::kF64);
  for (double& v : wide.span<double>()) v = size * (2 * random.uniform() - 1);
  Tensor result = Tensor::empty({rows, cols}, dtype);
  cpu::copy(wide, result);
  return result;
}

std::vector<double> as_double(const Tensor& t) {
  Tensor wide = Tensor::empty(t.shape(), DType::kF64);
  cpu::copy(t, wide);
  return {wide.span<double>().begin(), wide.span<double>().end()};
}

struct Reference {
  std::vector<double> losses, dx, dw;
};

Reference reference(const Tensor& x, const Tensor& w, const std::vector<int32_t>& targets,
                    double logit_scale, double grad_scale) {
  const auto n = static_cast<size_t>(x.size(0)), d = static_cast<size_t>(x.size(1)),
             vocab = static_cast<size_t>(w.size(0));
  const auto vx = as_double(x), vw = as_double(w);
  Reference r{std::vector<double>(n), std::vector<double>(n * d), std::vector<double>(vocab * d)};
  for (size_t row = 0; row < n; ++row) {
    if (targets[row] < 0) continue;
    std::vector<double> z(vocab);
    double top = -1e300, sum = 0;
    for (size_t v = 0; v < vocab; ++v) {
      for (size_t i = 0; i < d; ++i) z[v] += logit_scale * vx[row * d + i] * vw[v * d + i];
      top = std::max(top, z[v]);
    }
    for (const double value : z) sum += std::exp(value - top);
    r.losses[row] = top + std::log(sum) - z[static_cast<size_t>(targets[row])];
    for (size_t v = 0; v < vocab; ++v) {
      const double p = std::exp(z[v] - top) / sum - (static_cast<int32_t>(v) == targets[row]);
      for (size_t i = 0; i < d; ++i) {
        r.dx[row * d + i] += grad_scale * logit_scale * p * vw[v * d + i];
        r.dw[v * d + i] += grad_scale * logit_scale * p * vx[row * d + i];
      }
    }
  }
  return r;
}

double worst(const std::vector<double>& got, const std::vector<double>& want) {
  double size = 1e-30, difference = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    size = std::max(size, std::abs(want[i]));
    difference = std::max(difference, std::abs(got[i] - want[i]));
  }
  return difference / size;
}

TEST_CASE("losses and both gradients equal the textbook formula in double for any chunk") {
  struct Case {
    DType dtype;
    double tolerance;
  };
  for (const auto& [dtype, tolerance] :
       {Case{DType::kF64, 1e-13}, Case{DType::kF32, 4e-6}, Case{DType::kBF16, 8e-3}})
    for (const int64_t vocab : {1, 5, 16, 129, 1000})
      for (const double logit_scale : {1.0, 0.25, -2.0})
        for (const int64_t chunk : {1, 7, 0}) {
          const Tensor x = random_matrix(13, 24, 2, dtype, 1);
          const Tensor w = random_matrix(vocab, 24, 1, dtype, 2);
          std::vector<int32_t> targets;
          for (int32_t i = 0; i < 13; ++i)
            targets.push_back(i % 5 == 3 ? -1 : static_cast<int32_t>(i * 7919 % vocab));
          const DType wide = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
          Tensor losses = Tensor::empty({13}, wide), dx = Tensor::empty_like(x);
          Tensor dw = Tensor::zeros({vocab, 24}, wide);
          cpu::linear_cross_entropy(
              x, w, Tensor::from(targets, {13}),
              {.logit_scale = logit_scale, .grad_scale = 0.5, .chunk_tokens = chunk}, losses, &dx,
              &dw);
          const Reference r = reference(x, w, targets, logit_scale, 0.5);
          CAPTURE(dtype_name(dtype));
          CAPTURE(vocab);
          CAPTURE(logit_scale);
          CAPTURE(chunk);
          // Rounding of logits of size |z| is an absolute error of the loss.
          CHECK(worst(as_double(losses), r.losses) < (dtype == DType::kBF16 ? 1e-5 : tolerance));
          if (vocab == 1) continue;  // p - 1 is exactly 0
          CHECK(worst(as_double(dx), r.dx) < tolerance);
          CHECK(worst(as_double(dw), r.dw) < tolerance);

          // Without gradients the losses are the same; a second call adds to dw.
          Tensor again = Tensor::empty({13}, wide);
          cpu::linear_cross_entropy(x, w, Tensor::from(targets, {13}),
                                    {.logit_scale = logit_scale, .chunk_tokens = chunk}, again,
                                    nullptr, nullptr);
          CHECK(as_double(again) == as_double(losses));
        }
}

TEST_CASE("logits far beyond the range of exp give finite losses") {
  const Tensor x = Tensor::from(std::vector<float>{300, -300}, {2, 1});
  const Tensor w = Tensor::from(std::vector<float>{1, -1, 0}, {3, 1});
  Tensor losses = Tensor::empty({2}, DType::kF32);
  cpu::linear_cross_entropy(x, w, Tensor::from(std::vector<int32_t>{0, 0}, {2}), {}, losses,
                            nullptr, nullptr);
  CHECK(losses.span<float>()[0] == 0);
  CHECK(losses.span<float>()[1] == 600);
}

TEST_CASE("a target outside the vocabulary is refused with its row") {
  const Tensor x = Tensor::zeros({2, 4}, DType::kF32), w = Tensor::zeros({3, 4}, DType::kF32);
  Tensor losses = Tensor::empty({2}, DType::kF32);
  CHECK_THROWS_WITH_AS(
      cpu::linear_cross_entropy(x, w, Tensor::from(std::vector<int32_t>{0, 3}, {2}), {}, losses,
                                nullptr, nullptr),
      doctest::Contains("target 3 at row 1"), ShapeError);
}

}  // namespace
