#include "ops/masked_softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "backend/operands.h"

namespace lh {
namespace {

constexpr double kClosed = -std::numeric_limits<double>::infinity();

}  // namespace

Variable masked_softmax(const Variable& x, const Tensor& mask) {
  check_rank(x.value(), 2, "masked_softmax", "x");
  check_dtype(x.value(), DType::kF64, "masked_softmax", "x");
  LH_CHECK(x.device().is_cpu(), "[masked_softmax] expected a tensor of the host, got {}", x.value().str());
  check_like(mask, x.value(), "masked_softmax", "mask");
  const int64_t rows = x.size(0), n = x.size(1);
  const Tensor p = Tensor::empty_like(x.value());
  for (int64_t i = 0; i < rows; ++i) {
    const double *from = x.value().data<double>() + i * n, *masked = mask.data<double>() + i * n;
    double* to = p.data<double>() + i * n;
    double top = kClosed, sum = 0;
    for (int64_t j = 0; j < n; ++j) top = std::max(top, to[j] = from[j] + masked[j]);
    for (int64_t j = 0; j < n; ++j) sum += to[j] = to[j] == kClosed ? 0 : std::exp(to[j] - top);
    for (int64_t j = 0; j < n; ++j) to[j] /= sum == 0 ? 1 : sum;
  }
  return record("masked_softmax", {x}, p, [p, n](Gradients& gradients) {
    // dx = p (dp - sum_j p dp)
    const Tensor& dp = gradients.output();
    Tensor dx = Tensor::empty_like(p);
    for (int64_t i = 0; i < p.size(0); ++i) {
      const double *weight = p.data<double>() + i * n, *d = dp.data<double>() + i * n;
      double* to = dx.data<double>() + i * n;
      const double mean = std::inner_product(weight, weight + n, d, 0.0);
      for (int64_t j = 0; j < n; ++j) to[j] = weight[j] * (d[j] - mean);
    }
    gradients.add(0, dx);
  });
}

}  // namespace lh
