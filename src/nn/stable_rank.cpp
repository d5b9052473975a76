#include "nn/stable_rank.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/elementwise.h"
#include "backend/matmul.h"
#include "backend/operands.h"
#include "base/philox.h"

namespace lh {
namespace {

/// Of a symmetric tridiagonal matrix, positive semidefinite, with off[i] between i and i + 1: bisection on how many
/// pivots of T - x I are negative, which is how many eigenvalues lie below x.
double largest_eigenvalue(const std::vector<double>& diagonal, const std::vector<double>& off) {
  double low = *std::max_element(diagonal.begin(), diagonal.end()), high = 0;
  for (size_t i = 0; i < diagonal.size(); ++i)
    high = std::max(high, diagonal[i] + (i > 0 ? off[i - 1] : 0) + (i < off.size() ? off[i] : 0));
  for (int step = 0; step < 60 && high - low > 1e-14 * high; ++step) {
    const double middle = (low + high) / 2;
    bool all_below = true;
    double pivot = 0;
    for (size_t i = 0; i < diagonal.size() && all_below; ++i) {
      pivot = diagonal[i] - middle - (i > 0 ? off[i - 1] * off[i - 1] / pivot : 0);
      all_below = pivot < 0;
    }
    (all_below ? high : low) = middle;
  }
  return high;
}

/// Of a symmetric positive semidefinite matrix [n, n] that is not zero, by Lanczos iteration. Its vectors lose their
/// orthogonality once an eigenvalue has settled, which repeats that eigenvalue and moves none.
double spectral_norm(const double* matrix, size_t n) {
  Philox random(1);
  std::vector<double> v(n), before(n), next(n);
  for (double& value : v) value = random.normal();
  const auto length = [](const std::vector<double>& x) {
    double squares = 0;
    for (const double value : x) squares += value * value;
    return std::sqrt(squares);
  };
  const double first = length(v);
  for (double& value : v) value /= first;
  std::vector<double> diagonal, off;
  double largest = 0;
  constexpr size_t kMinSteps = 10, kMaxSteps = 1000;
  while (diagonal.size() < kMaxSteps) {
    std::fill(next.begin(), next.end(), 0.0);
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j < n; ++j) next[j] += matrix[i * n + j] * v[i];
    double along = 0;
    for (size_t j = 0; j < n; ++j) along += next[j] * v[j];
    for (size_t j = 0; j < n; ++j)
      next[j] -= along * v[j] + (off.empty() ? 0 : off.back() * before[j]);
    diagonal.push_back(along);
    const double found = largest_eigenvalue(diagonal, off), rest = length(next);
    const bool settled = diagonal.size() > kMinSteps && found - largest <= 1e-10 * found;
    largest = found;
    if (settled || rest <= 1e-13 * found) break;  // no rest: these directions are all that v reaches
    off.push_back(rest);
    before.swap(v);
    for (size_t j = 0; j < n; ++j) v[j] = next[j] / rest;
  }
  return largest;
}

}  // namespace

double stable_rank(const Tensor& w) {
  check_rank(w, 2, "stable_rank", "w");
  Tensor wide = Tensor::empty(w.shape(), DType::kF64);
  cpu::copy(w.to(kCpuDevice), wide);
  double frobenius = 0;
  for (const double value : wide.span<double>()) frobenius += value * value;
  if (frobenius == 0) return 0;
  const bool tall = w.size(0) > w.size(1);
  const int64_t n = std::min(w.size(0), w.size(1));
  Tensor gram = Tensor::empty({n, n}, DType::kF64);  // w^T w or w w^T, the smaller one
  cpu::gemm(wide, tall, wide, !tall, gram, false);
  return frobenius / spectral_norm(gram.data<double>(), static_cast<size_t>(n));
}

}  // namespace lh
