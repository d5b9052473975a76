// Momentum, plain updates and the clipping factor against their formulas in fp64.
#include "kernels/optim/updates.h"

#include <cmath>

#include "kernels/support/harness.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

TEST_CASE("a plain update decays and subtracts, and a bad step leaves everything") {
  for_each_mode([] {
    const std::size_t n = 37;
    const auto start = random_values<float>(n, 3), u = random_values<float>(n, 4);
    const Buffer<float> bp(start), bu(u);
    const Buffer<bf16> copy(n);
    const auto apply = [&](double scale) {
      const Buffer<double> scalars(std::vector<double>{scale, 0.5, 0.5, 1, 1});
      kernels::apply_update({.p = bp.get(),
                             .update = bu.get(),
                             .compute = copy.get(),
                             .learning_rate = 0.02,
                             .lr_multiplier = 2,
                             .weight_decay = 5,
                             .scalars = scalars.get()},
                            n, nullptr);
    };
    apply(NAN);
    CHECK(bp.host() == start);
    apply(1);
    std::vector<double> want(n);
    for (std::size_t i = 0; i < n; ++i) want[i] = 0.95 * start[i] - 0.02 * u[i];
    check_close(bp.host(), want, 1e-6, 1e-7, "parameter");
    check_close(copy.host(), to_double(bp.host()), 0.004, 0, "bf16 copy");
  });
}

TEST_CASE("momentum averages scaled gradients and looks ahead") {
  for_each_mode([] {
    for (const std::size_t offset : {0, 1}) {
      const std::size_t n = 41;
      const auto m = random_values<float>(n, 5), g = random_values<float>(n, 6);
      const Buffer<float> bm(m, offset), bg(g, offset), ahead(n, offset);
      const auto run = [&](double scale, float* direction) {
        const Buffer<double> scalars(std::vector<double>{scale, 1, 1, 1, 1});
        kernels::momentum(bm.get(), bg.get(), 0.9, scalars.get(), direction, n, nullptr);
      };
      run(INFINITY, ahead.get());
      CHECK(bm.host() == m);
      CHECK(ahead.host() == m);
      run(0.5, ahead.get());
      std::vector<double> average(n), direction(n);
      for (std::size_t i = 0; i < n; ++i) {
        average[i] = 0.9 * m[i] + 0.05 * g[i];
        direction[i] = 0.9 * average[i] + 0.05 * g[i];
      }
      check_close(bm.host(), average, 1e-6, 1e-7, "momentum");
      check_close(ahead.host(), direction, 1e-6, 1e-7, "direction");
      run(0.5, nullptr);
      for (std::size_t i = 0; i < n; ++i) average[i] = 0.9 * average[i] + 0.05 * g[i];
      check_close(bm.host(), average, 1e-6, 1e-7, "momentum without a direction");
    }
  });
}

TEST_CASE("the clipping factor is the norm's, and NaN for a bad norm or loss") {
  for_each_mode([] {
    const auto factor = [](double squares, std::vector<double> losses, double clip) {
      const Buffer<double> sum(std::vector<double>{squares}), values(losses), out(1);
      kernels::clip_scale(sum.get(), values.get(), static_cast<int>(losses.size()), clip, out.get(),
                          nullptr);
      return out.host()[0];
    };
    CHECK(factor(25, {1, 2}, 1) == 0.2);
    CHECK(factor(25, {1, 2}, 5) == 1);
    CHECK(factor(25, {1, 2}, 0) == 1);
    CHECK(factor(0, {1, 2}, 1) == 1);
    CHECK(std::isnan(factor(INFINITY, {1}, 1)));
    CHECK(std::isnan(factor(NAN, {1}, 0)));
    std::vector<double> losses(70, 3.0);
    CHECK(factor(4, losses, 1) == 0.5);
    losses[69] = -INFINITY;
    CHECK(std::isnan(factor(4, losses, 1)));
    losses[69] = 1;
    losses[0] = NAN;
    CHECK(std::isnan(factor(4, losses, 0)));
  });
}
