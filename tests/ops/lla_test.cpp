// Local linear attention against the regression it stands for, and its ties to Parallax and softmax
// attention.
#include <doctest/doctest.h>

#include <cmath>

#include "autograd/engine.h"
#include "ops/attention.h"
#include "ops/lla_attention.h"
#include "ops/parallax_attention.h"
#include "support/compare.h"

namespace {

using namespace lh;
using namespace lh::test;

constexpr int64_t kRows = 30, kHeads = 2, kD = 5, kVd = 4;

struct Case {
  Tensor q = random_tensor({kRows, kHeads, kD}, DType::kF64, 1);
  Tensor k = random_tensor({kRows, 1, kD}, DType::kF64, 2);
  Tensor v = random_tensor({kRows, 1, kVd}, DType::kF64, 3);
  std::shared_ptr<AttentionPlan> plan = std::make_shared<AttentionPlan>();

  Case() {
    plan->segments = {{0, 12, 0, 12, 0}, {12, 18, 12, 18, 0}};
    plan->mask = {11, 2};
    plan->scale = 0.5;
  }
  const double* key(int64_t j) const { return k.data<double>() + j * kD; }
  const double* value(int64_t j) const { return v.data<double>() + j * kVd; }
};

/// Gauss-Jordan elimination of a [n, n] and its right sides b [n, m], in place.
void eliminate(std::vector<double>& a, std::vector<double>& b, size_t n) {
  const size_t m = b.size() / n;
  for (size_t i = 0; i < n; ++i) {
    for (size_t row = 0; row < n; ++row) {
      if (row == i) continue;
      const double factor = a[row * n + i] / a[i * n + i];
      for (size_t j = 0; j < n; ++j) a[row * n + j] -= factor * a[i * n + j];
      for (size_t j = 0; j < m; ++j) b[row * m + j] -= factor * b[i * m + j];
    }
    for (size_t j = 0; j < m; ++j) b[i * m + j] /= a[i * n + i];
    for (size_t j = i + 1; j < n; ++j) a[i * n + j] /= a[i * n + i];
    a[i * n + i] = 1;
  }
}

/// Calls use(row, head, q, keys, weights e^(score - top), ridge_unit = their sum, top).
template <typename F>
void for_queries(const Case& c, F&& use) {
  for (const AttentionSegment& s : c.plan->segments)
    for (int64_t i = 0; i < s.query_length; ++i)
      for (int64_t h = 0; h < kHeads; ++h) {
        const double* q = c.q.data<double>() + ((s.query_begin + i) * kHeads + h) * kD;
        std::vector<int64_t> keys;
        std::vector<double> w;
        double top = -INFINITY;
        for (int64_t j = 0; j <= i; ++j) {
          if (i - j >= c.plan->mask.window && j >= c.plan->mask.sinks) continue;
          double score = 0;
          for (int64_t x = 0; x < kD; ++x) score += c.plan->scale * q[x] * c.key(s.key_begin + j)[x];
          keys.push_back(s.key_begin + j);
          w.push_back(score);
          top = std::max(top, score);
        }
        for (double& weight : w) weight = std::exp(weight - top);
        use(s.query_begin + i, h, q, keys, w, top);
      }
}

/// The intercept of the ridge regression of v on [1, k - q] with weights w, from its normal equations.
/// `penalty` is that of each slope.
std::vector<double> regression(const Case& c, const double* q, const std::vector<int64_t>& keys,
                               const std::vector<double>& w, double penalty) {
  constexpr size_t n = kD + 1;
  std::vector<double> a(n * n), b(n * kVd);
  for (size_t j = 0; j < keys.size(); ++j) {
    double z[n] = {1};
    for (size_t x = 0; x < kD; ++x) z[x + 1] = c.key(keys[j])[x] - q[x];
    for (size_t x = 0; x < n; ++x) {
      for (size_t y = 0; y < n; ++y) a[x * n + y] += w[j] * z[x] * z[y];
      for (size_t y = 0; y < kVd; ++y) b[x * kVd + y] += w[j] * z[x] * c.value(keys[j])[y];
    }
  }
  for (size_t x = 1; x < n; ++x) a[x * n + x] += penalty;
  eliminate(a, b, n);
  return {b.begin(), b.begin() + kVd};
}

double sum_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum;
}

Variable lla(const Case& c, double ridge) {
  return lla_attention(Variable(c.q), Variable(c.k), Variable(c.v), c.plan, {ridge, false});
}

TEST_CASE("local linear attention is the intercept of a weighted ridge regression") {
  const Case c;
  for (const double ridge : {0.01, 1.0, 10.0}) {
    std::vector<double> want(kRows * kHeads * kVd);
    for_queries(c, [&](int64_t row, int64_t h, const double* q, const auto& keys, const auto& w, double) {
      const auto b = regression(c, q, keys, w, ridge * sum_of(w));
      std::copy(b.begin(), b.end(), want.begin() + (row * kHeads + h) * kVd);
    });
    LH_CHECK_CLOSE(lla(c, ridge).value(), want, 1e-11);
  }
}

TEST_CASE("parallax with the best probe is local linear attention, which a large ridge makes softmax") {
  const Case c;
  for (const double ridge : {0.01, 1.0, 10.0}) {
    Tensor r = Tensor::zeros(c.q.shape(), DType::kF64);
    for_queries(c, [&](int64_t row, int64_t h, const double* q, const auto& keys, const auto& w, double) {
      const double total = sum_of(w);
      std::vector<double> mean(kD), a(kD * kD), b(kD);
      for (size_t j = 0; j < keys.size(); ++j)
        for (size_t x = 0; x < kD; ++x) mean[x] += w[j] / total * c.key(keys[j])[x];
      for (size_t x = 0; x < kD; ++x) {
        b[x] = mean[x] - q[x];
        for (size_t y = 0; y < kD; ++y)
          for (size_t j = 0; j < keys.size(); ++j)
            a[x * kD + y] += w[j] / total * (c.key(keys[j])[x] - mean[x]) * (c.key(keys[j])[y] - mean[y]);
        a[x * kD + x] += ridge;
      }
      eliminate(a, b, kD);
      std::copy(b.begin(), b.end(), r.data<double>() + (row * kHeads + h) * kD);
    });
    const auto parallax =
        parallax_attention(Variable(c.q), Variable(r), Variable(c.k), Variable(c.v), c.plan);
    LH_CHECK_CLOSE(lla(c, ridge).value(), parallax.out.value(), 1e-10);
  }
  LH_CHECK_CLOSE(lla(c, 1e12).value(),
                 attention(Variable(c.q), Variable(c.k), Variable(c.v), c.plan).value(), 1e-10);
}

TEST_CASE("a frozen ridge gives the gradient of a regression whose penalties are constants") {
  Case c;
  const double ridge = 0.7;
  // Weights measured from the tops of the unmoved case, penalties as they are there.
  std::vector<double> tops, penalties;
  for_queries(c, [&](int64_t, int64_t, const double*, const auto&, const auto& w, double top) {
    tops.push_back(top);
    penalties.push_back(ridge * sum_of(w));
  });
  const Tensor g = random_tensor({kRows, kHeads, kVd}, DType::kF64, 9);
  const auto loss = [&] {
    double sum = 0;
    size_t at = 0;
    for_queries(c, [&](int64_t row, int64_t h, const double* q, const auto& keys, auto w, double top) {
      for (double& weight : w) weight *= std::exp(top - tops[at]);
      const auto b = regression(c, q, keys, w, penalties[at++]);
      for (size_t y = 0; y < kVd; ++y)
        sum += b[y] * g.data<double>()[static_cast<size_t>(row * kHeads + h) * kVd + y];
    });
    return sum;
  };
  const Variable q = Variable::leaf(c.q), k = Variable::leaf(c.k), v = Variable::leaf(c.v);
  backward(lla_attention(q, k, v, c.plan, {ridge, true}), g);
  double apart = 0;  // from the exact gradient, which the same inputs give without the flag
  const Variable exact_q = Variable::leaf(c.q);
  backward(lla_attention(exact_q, Variable(c.k), Variable(c.v), c.plan, {ridge, false}), g);
  for (const auto& [leaf, tensor] : {std::pair{&q, &c.q}, {&k, &c.k}, {&v, &c.v}}) {
    const auto gradient = to_doubles(leaf->grad());
    for (size_t i = 0; i < gradient.size(); i += 7) {
      double& element = tensor->span<double>()[i];
      const double kept = element, step = 1e-5;
      element = kept + step;
      const double up = loss();
      element = kept - step;
      const double down = loss();
      element = kept;
      CHECK(gradient[i] == doctest::Approx((up - down) / (2 * step)).epsilon(1e-7).scale(1));
    }
  }
  const auto frozen = to_doubles(q.grad()), exact = to_doubles(exact_q.grad());
  for (size_t i = 0; i < exact.size(); ++i) apart = std::max(apart, std::abs(exact[i] - frozen[i]));
  CHECK(apart > 1e-3);
}

TEST_CASE("local linear attention in narrow types is the same arithmetic, rounded once") {
  const Case c;
  const auto want = to_doubles(lla(c, 1).value());
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const auto narrow = [&](const Tensor& t) { return from_doubles(to_doubles(t), t.shape(), dtype); };
    const Tensor q = narrow(c.q), k = narrow(c.k), v = narrow(c.v);
    const auto wide = [](const Tensor& t) {
      return Variable(from_doubles(to_doubles(t), t.shape(), DType::kF64));
    };
    const Tensor got =
        lla_attention(Variable(q), Variable(k), Variable(v), c.plan, {1, false}).value();
    const Tensor exact = lla_attention(wide(q), wide(k), wide(v), c.plan, {1, false}).value();
    CHECK(bitwise_equal(got, narrow(exact)));
  }
}

TEST_CASE("local linear attention refuses a ridge that is not positive") {
  const Case c;
  CHECK_THROWS_WITH_AS(lla(c, 0), doctest::Contains("ridge: expected above 0, got 0"), ShapeError);
}

}  // namespace
