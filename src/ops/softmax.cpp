#include "ops/softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "backend/operands.h"

namespace lh {

Variable softmax(const Variable& x) {
  check_rank(x.value(), 2, "softmax", "x");
  check_dtype(x.value(), DType::kF64, "softmax", "x");
  LH_CHECK(x.device().is_cpu(), "[softmax] expected a tensor of the host, got {}", x.value().str());
  const int64_t rows = x.size(0), n = x.size(1);
  const Tensor p = Tensor::empty_like(x.value());
  for (int64_t i = 0; i < rows; ++i) {
    const double* from = x.value().data<double>() + i * n;
    double* to = p.data<double>() + i * n;
    const double top = std::accumulate(from, from + n, -std::numeric_limits<double>::infinity(),
                                       [](double a, double b) { return std::max(a, b); });
    double sum = 0;
    for (int64_t j = 0; j < n; ++j)
      sum += to[j] = from[j] == -std::numeric_limits<double>::infinity() ? 0 : std::exp(from[j] - top);
    for (int64_t j = 0; j < n; ++j) to[j] /= sum == 0 ? 1 : sum;
  }
  return record("softmax", {x}, p, [p, n](Gradients& gradients) {
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
