// KL divergence against the formula in fp64 and central differences.
#include "kernels/loss/kl.h"

#include <cmath>

#include "kernels/support/harness.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

std::vector<double> log_softmax(std::vector<double> z, double temperature) {
  double top = -1e300, sum = 0;
  for (double& x : z) top = std::max(top, x /= temperature);
  for (const double x : z) sum += std::exp(x - top);
  for (double& x : z) x -= top + std::log(sum);
  return z;
}

double divergence(const std::vector<double>& teacher, const std::vector<double>& student,
                  double temperature) {
  const auto p = log_softmax(teacher, temperature), q = log_softmax(student, temperature);
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i)
    if (std::exp(p[i]) > 0) sum += std::exp(p[i]) * (p[i] - q[i]);
  return sum;
}

template <class T>
void rows_case(int rows, int vocab, double temperature) {
  CAPTURE(vocab);
  CAPTURE(temperature);
  const std::size_t n = static_cast<std::size_t>(rows) * vocab;
  auto teacher = random_values<float>(n, 1, 2.0f);
  const auto student = random_values<float>(n, 2, 2.0f);
  if (vocab > 3) teacher[2] = -INFINITY;  // ruled out
  std::vector<std::uint8_t> valid(rows, 1);
  valid[rows - 1] = 0;
  std::vector<double> losses, gradient;
  for (int r = 0; r < rows; ++r) {
    const auto begin = static_cast<std::ptrdiff_t>(r) * vocab;
    const std::vector<double> t(teacher.begin() + begin, teacher.begin() + begin + vocab);
    const std::vector<double> s(student.begin() + begin, student.begin() + begin + vocab);
    losses.push_back(valid[r] ? divergence(t, s, temperature) : 0);
    for (int i = 0; i < vocab; ++i) {
      auto plus = s, minus = s;
      plus[i] += 1e-4;
      minus[i] -= 1e-4;
      gradient.push_back(valid[r] ? 0.5 * (divergence(t, plus, temperature) -
                                           divergence(t, minus, temperature)) / 2e-4
                                  : 0);
    }
  }
  Buffer<float> bt(teacher), bs(student), out(rows);
  Buffer<std::uint8_t> bv(valid);
  Buffer<T> d(n);
  kernels::kl_divergence<T>({bt.get(), bs.get(), bv.get(), out.get(), d.get(),
                             static_cast<float>(temperature), 0.5f, rows, vocab},
                            nullptr);
  check_close(out.host(), losses, 1e-5, 2e-6, "loss");
  check_close(d.host(), gradient, kRounding<T>, 1e-6, "gradient");
}

}  // namespace

TEST_CASE("kl divergence and its gradient equal the formula at every temperature") {
  for_each_mode([] {
    for (const int vocab : {1, 5, 64, 301}) {
      rows_case<float>(3, vocab, 1.0);
      rows_case<bf16>(3, vocab, 2.5);
    }
  });
}
