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
  std::vector<std::int32_t> targets(rows, 0);
  targets[rows - 1] = -1;
  std::vector<double> losses, gradient;
  for (int r = 0; r < rows; ++r) {
    const bool valid = targets[r] >= 0;
    const auto begin = static_cast<std::ptrdiff_t>(r) * vocab;
    const std::vector<double> t(teacher.begin() + begin, teacher.begin() + begin + vocab);
    const std::vector<double> s(student.begin() + begin, student.begin() + begin + vocab);
    const double square = temperature * temperature;
    losses.push_back(valid ? square * divergence(t, s, temperature) : 0);
    for (int i = 0; i < vocab; ++i) {
      auto plus = s, minus = s;
      plus[i] += 1e-4;
      minus[i] -= 1e-4;
      gradient.push_back(valid ? square * (divergence(t, plus, temperature) -
                                           divergence(t, minus, temperature)) / 2e-4
                               : 0);
    }
  }
  Buffer<std::int32_t> bt(targets);
  Buffer<float> tops(2 * rows), sums(2 * rows), out(rows);
  const kernels::SoftmaxStatistics of_teacher{tops.get(), sums.get()},
      of_student{tops.get() + rows, sums.get() + rows};
  // Both are T^2 times an f32 quantity that is right to 2e-6.
  const double absolute = 2e-6 * temperature * temperature;
  for (const int columns : {vocab, (vocab + 2) / 3}) {
    CAPTURE(columns);
    const auto each_chunk = [&](const auto& function) {
      for (int first = 0; first < vocab; first += columns) {
        const int count = std::min(columns, vocab - first);
        std::vector<float> t, s;
        for (int r = 0; r < rows; ++r) {
          const auto begin = static_cast<std::ptrdiff_t>(r) * vocab + first;
          t.insert(t.end(), teacher.begin() + begin, teacher.begin() + begin + count);
          s.insert(s.end(), student.begin() + begin, student.begin() + begin + count);
        }
        Buffer<float> dt(t), ds(s);
        function(dt.get(), ds.get(), count, first);
      }
    };
    const auto inverse = static_cast<float>(1 / temperature);
    each_chunk([&](const float* t, const float* s, int count, int first) {
      softmax_statistics({t, nullptr, inverse, rows, count, first, vocab}, of_teacher, nullptr);
      softmax_statistics({s, nullptr, inverse, rows, count, first, vocab}, of_student, nullptr);
    });
    each_chunk([&](const float* t, const float* s, int count, int first) {
      Buffer<T> d(static_cast<std::size_t>(rows) * count);
      kernels::kl_divergence<T>({t, s, of_teacher, of_student, bt.get(), out.get(), d.get(),
                                 static_cast<float>(temperature), rows, count, first == 0},
                                nullptr);
      std::vector<double> want;
      for (int r = 0; r < rows; ++r) {
        const auto begin = gradient.begin() + static_cast<std::ptrdiff_t>(r) * vocab + first;
        want.insert(want.end(), begin, begin + count);
      }
      check_close(d.host(), want, kRounding<T>, absolute, "gradient");
    });
    check_close(out.host(), losses, 1e-5, absolute, "loss");
  }
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
