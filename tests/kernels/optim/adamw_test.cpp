// AdamW over lists of tensors against the textbook formulas in fp64, one tensor at a time.
#include "kernels/optim/adamw.h"

#include <cmath>
#include <memory>

#include "kernels/support/harness.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

constexpr double kDecay = 0.7;  // factor of the schedule
constexpr double kLr = 0.01, kBeta1 = 0.9, kBeta2 = 0.95, kEps = 1e-8;

/// A parameter on the device and the textbook's, side by side.
struct Case {
  std::size_t n, offset;
  double lr_multiplier, weight_decay;
  bool copies;
  std::vector<double> p, m, v;
  std::unique_ptr<Buffer<float>> bp, bg, bm, bv;
  std::unique_ptr<Buffer<bf16>> copy;

  Case(std::size_t size, std::size_t skip, double lr, double decay, bool with_copy)
      : n(size), offset(skip), lr_multiplier(lr), weight_decay(decay), copies(with_copy), m(n), v(n) {
    const auto start = random_values<float>(n, static_cast<unsigned>(n));
    p = to_double(start);
    bp = std::make_unique<Buffer<float>>(start, offset);
    bm = std::make_unique<Buffer<float>>(std::vector<float>(n, 0.0f), offset);
    bv = std::make_unique<Buffer<float>>(std::vector<float>(n, 0.0f), offset);
    copy = std::make_unique<Buffer<bf16>>(std::vector<bf16>(n, bf16{0}), offset);
  }

  void step(int t, double factor, double scale) {
    const auto g = random_values<float>(n, static_cast<unsigned>(100 * t + n));
    bg = std::make_unique<Buffer<float>>(g, offset);
    if (!std::isfinite(scale)) return;
    const double lr = kLr * factor * lr_multiplier;
    for (std::size_t i = 0; i < n; ++i) {
      const double x = scale * g[i];
      m[i] = kBeta1 * m[i] + (1 - kBeta1) * x;
      v[i] = kBeta2 * v[i] + (1 - kBeta2) * x * x;
      const double mh = m[i] / (1 - std::pow(kBeta1, t)), vh = v[i] / (1 - std::pow(kBeta2, t));
      p[i] -= lr * (mh / (std::sqrt(vh) + kEps) + kDecay * weight_decay * p[i]);
    }
  }
};

void launch(std::vector<Case>& cases, int t, double factor, double scale) {
  std::vector<kernels::AdamWTensor> list;
  std::int64_t chunks = 0;
  for (Case& c : cases) {
    c.step(t, factor, scale);
    list.push_back({.p = c.bp->get(),
                    .g = c.bg->get(),
                    .m = c.bm->get(),
                    .v = c.bv->get(),
                    .compute = c.copies ? c.copy->get() : nullptr,
                    .n = static_cast<std::int64_t>(c.n),
                    .first_chunk = chunks,
                    .lr_multiplier = c.lr_multiplier,
                    .weight_decay = c.weight_decay});
    chunks += kernels::chunks_of(static_cast<std::int64_t>(c.n));
  }
  const Buffer<kernels::AdamWTensor> tensors(list);
  const Buffer<double> scalars(std::vector<double>{scale, factor, kDecay, 1 - std::pow(kBeta1, t),
                                                   1 / std::sqrt(1 - std::pow(kBeta2, t))});
  kernels::adamw({.tensors = tensors.get(),
                  .count = static_cast<int>(list.size()),
                  .chunks = chunks,
                  .learning_rate = kLr,
                  .beta1 = kBeta1,
                  .beta2 = kBeta2,
                  .eps = kEps,
                  .scalars = scalars.get()},
                 nullptr);
}

}  // namespace

TEST_CASE("three AdamW steps over a list equal Loshchilov and Hutter's algorithm for each tensor") {
  for_each_mode(
      [] {
        std::vector<Case> cases;
        cases.emplace_back(1, 0, 1.0, 0.1, true);
        cases.emplace_back(1001, 0, 0.5, 0.1, true);
        cases.emplace_back(6, 1, 1.0, 0.0, false);     // not aligned
        cases.emplace_back(36001, 0, 1.0, 0.3, true);  // three chunks, the last one ragged
        cases.emplace_back(16384, 0, 2.0, 0.0, false);
        cases.emplace_back(515, 3, 1.0, 0.1, true);
        for (int t = 1; t <= 3; ++t) launch(cases, t, 0.25 * t, t == 2 ? 0.5 : 1.0);
        launch(cases, 4, 1.0, NAN);  // a bad step changes nothing
        launch(cases, 4, 1.0, INFINITY);
        for (const Case& c : cases) {
          CAPTURE(c.n);
          check_close(c.bp->host(), c.p, 1e-5, 2e-6, "parameter");
          check_close(c.bm->host(), c.m, 1e-5, 1e-7, "m");
          check_close(c.bv->host(), c.v, 1e-5, 1e-7, "v");
          if (c.copies)
            check_close(c.copy->host(), to_double(c.bp->host()), 0.004, 0, "bf16 copy");
          else
            for (const bf16 x : c.copy->host()) REQUIRE(x.bits == 0);
        }
      },
      true);
}

TEST_CASE("an empty list is no launch") {
  kernels::adamw({}, nullptr);
}
