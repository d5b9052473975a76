// AdamW and plain updates against the textbook formulas in fp64.
#include "kernels/optim/updates.h"

#include <cmath>

#include "kernels/support/harness.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

TEST_CASE("three AdamW steps equal Loshchilov and Hutter's algorithm") {
  for_each_mode([] {
    for (const std::size_t n : {1, 6, 1001}) {
      CAPTURE(n);
      const double lr = 0.01, b1 = 0.9, b2 = 0.95, eps = 1e-8, decay = 0.1, clip = 0.5;
      const auto start = random_values<float>(n, 1);
      std::vector<double> p = to_double(start), m(n), v(n);
      Buffer<float> bp(start), bm(std::vector<float>(n, 0.0f)), bv(std::vector<float>(n, 0.0f));
      Buffer<bf16> copy(n);
      for (int t = 1; t <= 3; ++t) {
        const auto g = random_values<float>(n, 10 + t);
        for (std::size_t i = 0; i < n; ++i) {
          const double x = clip * g[i];
          m[i] = b1 * m[i] + (1 - b1) * x;
          v[i] = b2 * v[i] + (1 - b2) * x * x;
          const double mh = m[i] / (1 - std::pow(b1, t)), vh = v[i] / (1 - std::pow(b2, t));
          p[i] -= lr * (mh / (std::sqrt(vh) + eps) + decay * p[i]);
        }
        Buffer<float> bg(g);
        const kernels::AdamWCoefficients c{
            static_cast<float>(clip),
            static_cast<float>(b1),
            static_cast<float>(b2),
            static_cast<float>(lr / (1 - std::pow(b1, t))),
            static_cast<float>(1 / std::sqrt(1 - std::pow(b2, t))),
            static_cast<float>(eps),
            static_cast<float>(1 - lr * decay)};
        kernels::adamw_step(bp.get(), bg.get(), bm.get(), bv.get(), t == 3 ? copy.get() : nullptr,
                            c, static_cast<std::int64_t>(n), nullptr);
      }
      check_close(bp.host(), p, 1e-5, 1e-6, "parameter");
      check_close(bm.host(), m, 1e-5, 1e-7, "m");
      check_close(bv.host(), v, 1e-5, 1e-7, "v");
      check_close(copy.host(), to_double(bp.host()), 0.004, 0, "bf16 copy");
    }
  });
}

TEST_CASE("a plain update decays and subtracts") {
  for_each_mode([] {
    const std::size_t n = 37;
    const auto start = random_values<float>(n, 3), u = random_values<float>(n, 4);
    Buffer<float> bp(start), bu(u);
    kernels::apply_update(bp.get(), bu.get(), 0.9f, 0.02f, nullptr, n, nullptr);
    std::vector<double> want(n);
    for (std::size_t i = 0; i < n; ++i) want[i] = 0.9 * start[i] - 0.02 * u[i];
    check_close(bp.host(), want, 1e-6, 1e-7, "parameter");
  });
}
