// The losses over a head by their textbook formulas in double, for any device.
#pragma once

#include <doctest/doctest.h>

#include <cmath>

#include "autograd/engine.h"
#include "base/math.h"
#include "ops/elementwise.h"
#include "ops/linear_cross_entropy.h"
#include "ops/linear_kl.h"
#include "support/compare.h"

namespace lh::test {

struct HeadReference {
  std::vector<double> losses, dx, dw;
};

inline std::vector<double> logits_of(const Tensor& x, const Tensor& w, double scale) {
  const auto n = static_cast<size_t>(x.size(0)), d = static_cast<size_t>(x.size(1)),
             vocab = static_cast<size_t>(w.size(0));
  const auto vx = to_doubles(x), vw = to_doubles(w);
  std::vector<double> z(n * vocab);
  for (size_t r = 0; r < n; ++r)
    for (size_t v = 0; v < vocab; ++v)
      for (size_t i = 0; i < d; ++i) z[r * vocab + v] += scale * vx[r * d + i] * vw[v * d + i];
  return z;
}

inline std::vector<double> softmax_of(const double* z, size_t n, double temperature) {
  double top = -INFINITY, sum = 0;
  for (size_t i = 0; i < n; ++i) top = std::max(top, z[i] / temperature);
  std::vector<double> p(n);
  for (size_t i = 0; i < n; ++i) sum += p[i] = std::exp(z[i] / temperature - top);
  for (double& value : p) value /= sum;
  return p;
}

/// Adds what a gradient `d` of row r's logits means for x and w.
inline void add_row(HeadReference& to, size_t r, const std::vector<double>& d, double scale,
                    const std::vector<double>& x, const std::vector<double>& w) {
  const size_t width = w.size() / d.size();
  for (size_t v = 0; v < d.size(); ++v)
    for (size_t i = 0; i < width; ++i) {
      to.dx[r * width + i] += scale * d[v] * w[v * width + i];
      to.dw[v * width + i] += scale * d[v] * x[r * width + i];
    }
}

inline HeadReference cross_entropy_reference(const Tensor& x, const Tensor& w,
                                             const std::vector<int32_t>& targets, double scale) {
  const size_t n = targets.size(), vocab = static_cast<size_t>(w.size(0));
  const auto z = logits_of(x, w, scale), vx = to_doubles(x), vw = to_doubles(w);
  HeadReference result{std::vector<double>(n), std::vector<double>(vx.size()),
                       std::vector<double>(vw.size())};
  for (size_t r = 0; r < n; ++r) {
    if (targets[r] < 0) continue;
    std::vector<double> p = softmax_of(&z[r * vocab], vocab, 1);
    result.losses[r] = -std::log(p[static_cast<size_t>(targets[r])]);
    p[static_cast<size_t>(targets[r])] -= 1;
    add_row(result, r, p, scale, vx, vw);
  }
  return result;
}

/// T^2 sum p log(p / q), and its derivative T (q - p) by the student's logits.
inline HeadReference kl_reference(const Tensor& x, const Tensor& w,
                                  const std::vector<double>& teacher,
                                  const std::vector<int32_t>& targets, double temperature,
                                  double scale) {
  const size_t n = targets.size(), vocab = static_cast<size_t>(w.size(0));
  const auto z = logits_of(x, w, scale), vx = to_doubles(x), vw = to_doubles(w);
  HeadReference result{std::vector<double>(n), std::vector<double>(vx.size()),
                       std::vector<double>(vw.size())};
  for (size_t r = 0; r < n; ++r) {
    if (targets[r] < 0) continue;
    const auto p = softmax_of(&teacher[r * vocab], vocab, temperature);
    auto q = softmax_of(&z[r * vocab], vocab, temperature);
    for (size_t v = 0; v < vocab; ++v) {
      if (p[v] > 0) result.losses[r] += temperature * temperature * p[v] * std::log(p[v] / q[v]);
      q[v] = temperature * (q[v] - p[v]);
    }
    add_row(result, r, q, scale, vx, vw);
  }
  return result;
}

/// Largest error as a share of the largest value, absolute where all values are 0.
inline double worst_share(const std::vector<double>& got, const std::vector<double>& want) {
  double size = 0, difference = 0;
  REQUIRE(got.size() == want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    size = std::max(size, std::abs(want[i]));
    difference = larger_or_nan(difference, std::abs(got[i] - want[i]));
  }
  return difference / (size > 0 ? size : 1);
}

/// Where one of x and w is a constant the other has the gradient, bit for bit, that it has now from half of the loss.
template <typename Loss>
void check_one_constant(const Loss& loss, const Variable& x, const Variable& w) {
  for (const bool of_x : {true, false}) {
    const Variable learned = Variable::leaf((of_x ? x : w).value());
    backward(scale(of_x ? loss(learned, w.detach()) : loss(x.detach(), learned), 0.5));
    CHECK(to_doubles(learned.grad().to(kCpuDevice)) ==
          to_doubles((of_x ? x : w).grad().to(kCpuDevice)));
  }
}

struct HeadTolerance {
  DType dtype;
  double losses, gradients;
};

/// Runs both losses with every cut on a device and compares. f64 where the device has it.
inline void check_head_losses(const HeadTolerance& tolerance, Device device,
                              const std::vector<int64_t>& vocabularies) {
  constexpr int64_t kRows = 13, kWidth = 24, kTeacherWidth = 10;
  const DType dtype = tolerance.dtype;
  for (const int64_t vocab : vocabularies) {
    const Tensor x = random_tensor({kRows, kWidth}, dtype, 1, 2);
    const Tensor w = random_tensor({vocab, kWidth}, dtype, 2, 0.5);
    const Tensor hidden = random_tensor({kRows, kTeacherWidth}, dtype, 3, 2);
    const Tensor head = random_tensor({vocab, kTeacherWidth}, dtype, 4, 0.5);
    std::vector<int32_t> targets;
    for (int32_t i = 0; i < kRows; ++i)
      targets.push_back(i % 5 == 3 ? -1 : static_cast<int32_t>(i * 7919 % vocab));
    const Tensor wanted = Tensor::from(targets, {kRows}).to(device);
    const auto compare = [&](const HeadReference& r, const Tensor& losses, const Variable& sum,
                             const Variable& vx, const Variable& vw) {
      backward(scale(sum, 0.5));
      CHECK(worst_share(to_doubles(losses.to(kCpuDevice)), r.losses) < tolerance.losses);
      if (vocab == 1) return;  // all gradients are 0
      std::vector<double> dx = r.dx, dw = r.dw;
      for (double& value : dx) value *= 0.5;
      for (double& value : dw) value *= 0.5;
      CHECK(worst_share(to_doubles(vx.grad().to(kCpuDevice)), dx) < tolerance.gradients);
      CHECK(worst_share(to_doubles(vw.grad().to(kCpuDevice)), dw) < tolerance.gradients);
    };
    for (const HeadChunks& chunks :
         {HeadChunks{kRows, vocab}, HeadChunks{5, vocab}, HeadChunks{kRows, 64}, HeadChunks{4, 3}}) {
      CAPTURE(std::string(dtype_name(dtype)));
      CAPTURE(vocab);
      CAPTURE(chunks.tokens);
      CAPTURE(chunks.columns);
      for (const double logit_scale : {1.0, 0.25, -2.0}) {
        CAPTURE(logit_scale);
        const Variable vx = Variable::leaf(x.to(device)), vw = Variable::leaf(w.to(device));
        const auto result = linear_cross_entropy(vx, vw, wanted, logit_scale, chunks);
        compare(cross_entropy_reference(x, w, targets, logit_scale), result.losses, result.loss_sum,
                vx, vw);
        const auto alone = linear_cross_entropy(vx.detach(), vw.detach(), wanted, logit_scale, chunks);
        CHECK(to_doubles(alone.losses.to(kCpuDevice)) == to_doubles(result.losses.to(kCpuDevice)));
        check_one_constant([&](const Variable& a, const Variable& b) {
          return linear_cross_entropy(a, b, wanted, logit_scale, chunks).loss_sum;
        }, vx, vw);
      }
      for (const double temperature : {1.0, 2.5}) {
        CAPTURE(temperature);
        const auto z = logits_of(hidden, head, 0.5);
        Teacher by_states{Tensor(), hidden.to(device), head.to(device), 0.5};
        Tensor logits = Tensor::empty({kRows, vocab}, dtype == DType::kF64 ? dtype : DType::kF32);
        assign(logits, z);
        Teacher by_logits{logits.to(device), Tensor(), Tensor()};
        for (const Teacher& teacher : {by_states, by_logits}) {
          const Variable vx = Variable::leaf(x.to(device)), vw = Variable::leaf(w.to(device));
          const auto result = linear_kl(vx, vw, teacher, wanted, temperature, 0.7, chunks);
          compare(kl_reference(x, w, z, targets, temperature, 0.7), result.losses, result.loss_sum,
                  vx, vw);
          check_one_constant([&](const Variable& a, const Variable& b) {
            return linear_kl(a, b, teacher, wanted, temperature, 0.7, chunks).loss_sum;
          }, vx, vw);
        }
      }
    }
  }
}

}  // namespace lh::test
