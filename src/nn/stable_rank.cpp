#include "nn/stable_rank.h"

#include <cmath>
#include <vector>

#include "backend/elementwise.h"
#include "backend/operands.h"
#include "base/philox.h"

namespace lh {

double stable_rank(const Tensor& w) {
  check_rank(w, 2, "stable_rank", "w");
  const Tensor here = w.to(kCpuDevice);
  Tensor wide = Tensor::empty(w.shape(), DType::kF64);
  cpu::copy(here, wide);
  const int64_t rows = w.size(0), cols = w.size(1);
  const double* a = wide.data<double>();
  double frobenius = 0;
  for (int64_t i = 0; i < rows * cols; ++i) frobenius += a[i] * a[i];
  if (frobenius == 0) return 0;

  Philox random(1);
  std::vector<double> x(static_cast<size_t>(cols)), y(static_cast<size_t>(rows));
  for (double& value : x) value = random.normal();
  // |w x| / |x| grows to the largest singular value; it rises slowly where several are close, but
  // then its error is as small as their distance.
  double largest = 0;
  constexpr int kMaxSteps = 2000;
  for (int step = 0; step < kMaxSteps; ++step) {
    double norm = 0;
    for (const double value : x) norm += value * value;
    norm = std::sqrt(norm);
    double stretched = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      double sum = 0;
      for (size_t j = 0; j < x.size(); ++j) sum += a[i * x.size() + j] * x[j];
      y[i] = sum / norm;
      stretched += y[i] * y[i];
    }
    std::fill(x.begin(), x.end(), 0.0);
    for (size_t i = 0; i < y.size(); ++i)
      for (size_t j = 0; j < x.size(); ++j) x[j] += a[i * x.size() + j] * y[i];
    const bool settled = step > 10 && std::abs(stretched - largest) <= 1e-9 * stretched;
    largest = stretched;
    if (settled) break;
  }
  return frobenius / largest;
}

}  // namespace lh
