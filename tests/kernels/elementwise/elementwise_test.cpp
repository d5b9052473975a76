// The elementwise kernels against their formulas in fp64: vector and scalar paths, ragged sizes,
// strided rows.
#include <cmath>

#include "base/philox.h"
#include "kernels/elementwise/bias.h"
#include "kernels/elementwise/copy.h"
#include "kernels/elementwise/gates.h"
#include "kernels/elementwise/linear.h"
#include "kernels/elementwise/utility_gate.h"
#include "kernels/support/harness.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

// One, a ragged tail, and more than the largest grid covers in one step is left to the real sizes:
// 2112 blocks of 256 threads.
constexpr std::size_t kSizes[] = {1, 7, 64, 1003, 4096};

template <class T>
void linear_case(std::size_t n, std::size_t offset) {
  CAPTURE(n);
  const auto a = random_values<T>(n, 1), b = random_values<T>(n, 2);
  const auto da = to_double(a), db = to_double(b);
  Buffer<T> ba(a, offset), bb(b, offset), out(n, offset);
  const auto size = static_cast<std::int64_t>(n);
  std::vector<double> want(n);

  kernels::add_scaled<T>(ba.get(), 0.5f, bb.get(), -3.0f, out.get(), size, nullptr);
  for (std::size_t i = 0; i < n; ++i) want[i] = 0.5 * da[i] - 3 * db[i];
  check_close(out.host(), want, kRounding<T>, 1e-6, "add_scaled");

  kernels::scale<T>(ba.get(), -1.5f, out.get(), size, nullptr);
  for (std::size_t i = 0; i < n; ++i) want[i] = -1.5 * da[i];
  check_close(out.host(), want, kRounding<T>, 0, "scale");

  kernels::multiply<T>(ba.get(), bb.get(), out.get(), size, nullptr);
  for (std::size_t i = 0; i < n; ++i) want[i] = da[i] * db[i];
  check_close(out.host(), want, kRounding<T>, 0, "multiply");

  Buffer<float> alpha(std::vector<float>{0.25f});
  kernels::scale_by<T>(ba.get(), alpha.get(), false, out.get(), size, nullptr);
  for (std::size_t i = 0; i < n; ++i) want[i] = 0.25 * da[i];
  check_close(out.host(), want, kRounding<T>, 0, "scale_by");
  kernels::scale_by<T>(ba.get(), alpha.get(), true, bb.get(), size, nullptr);
  for (std::size_t i = 0; i < n; ++i) want[i] = db[i] + 0.25 * da[i];
  check_close(bb.host(), want, kRounding<T>, 1e-6, "scale_by accumulate");
}

template <class T>
void gate_case(int rows, int cols, int gap) {
  CAPTURE(rows);
  CAPTURE(cols);
  CAPTURE(gap);
  const auto stride = static_cast<std::size_t>(cols + gap);
  const std::size_t n = stride * rows;
  const auto g = random_values<T>(n, 3, 3.0f), x = random_values<T>(n, 4), dy = random_values<T>(n, 5);
  Buffer<T> bg(g), bx(x), bdy(dy), y(n), dg(n), dx(n);
  kernels::GateParams<T> p;
  p.gate = bg.get();
  p.x = bx.get();
  p.dy = bdy.get();
  p.y = y.get();
  p.d_gate = dg.get();
  p.dx = dx.get();
  p.gate_stride = p.x_stride = p.dy_stride = p.y_stride = p.d_gate_stride = p.dx_stride =
      static_cast<std::int64_t>(stride);
  p.rows = rows;
  p.cols = cols;
  for (const bool silu : {true, false}) {
    if (silu) {
      kernels::swiglu_fwd(p, nullptr);
      kernels::swiglu_bwd(p, nullptr);
    } else {
      kernels::sigmoid_gate_fwd(p, nullptr);
      kernels::sigmoid_gate_bwd(p, nullptr);
    }
    const auto gate = to_double(g), value = to_double(x), grad = to_double(dy);
    const auto f = [&](double v) { return (silu ? v : 1.0) / (1 + std::exp(-v)); };
    // Gaps between rows keep the NaN they were filled with.
    std::vector<double> want_y, want_dg, want_dx;
    std::vector<T> got_y, got_dg, got_dx;
    const auto hy = y.host(), hdg = dg.host(), hdx = dx.host();
    for (std::size_t i = 0; i < n; ++i) {
      if (i % stride >= static_cast<std::size_t>(cols)) {
        REQUIRE(std::isnan(xpu::to_float(hy[i])));
        continue;
      }
      const double h = 1e-5;
      want_y.push_back(f(gate[i]) * value[i]);
      want_dx.push_back(f(gate[i]) * grad[i]);
      want_dg.push_back((f(gate[i] + h) - f(gate[i] - h)) / (2 * h) * value[i] * grad[i]);
      got_y.push_back(hy[i]);
      got_dx.push_back(hdx[i]);
      got_dg.push_back(hdg[i]);
    }
    check_close(got_y, want_y, kRounding<T>, 1e-6, "y");
    check_close(got_dx, want_dx, kRounding<T>, 1e-6, "dx");
    check_close(got_dg, want_dg, kRounding<T>, 2e-6, "d_gate");
  }
}

template <class T>
void utility_gate_case(std::size_t n, float alpha, kernels::UtilityGateMode mode, std::size_t offset,
                       bool weighted = false, float clip = 0.0f, float pull = 0.0f) {
  using Mode = kernels::UtilityGateMode;
  CAPTURE(n);
  CAPTURE(alpha);
  const bool hard = mode == Mode::kHard, sampled = mode == Mode::kSample;
  const std::size_t heads = 3;
  std::vector<std::int64_t> numbers((n + heads - 1) / heads);
  for (std::size_t r = 0; r < numbers.size(); ++r)
    numbers[r] = r % 4 == 2 ? -1 : static_cast<std::int64_t>(r) + (std::int64_t{1} << 35);
  const auto x = random_values<T>(n, 3, 3.0f);
  const auto g = random_values<float>(n, 4);
  Buffer<T> bx(x, offset), dx(n, offset);
  Buffer<float> bias(n, offset), dbias(g, offset), utilities(n, offset);
  Buffer<std::int64_t> rows(numbers);
  kernels::UtilityGateParams<T> p;
  p.logits = bx.get();
  p.bias = bias.get();
  p.dbias = dbias.get();
  p.d_logits = dx.get();
  p.alpha = alpha;
  p.threshold = 0.4f;
  p.mode = mode;
  p.weighted = weighted;
  p.clip = clip;
  p.pull = pull;
  p.rows = rows.get();
  p.draw_key = 77;
  p.heads = static_cast<std::int64_t>(heads);
  p.size = static_cast<std::int64_t>(n);
  kernels::utility_gate_fwd(p, nullptr);
  kernels::utility_gate_bwd(p, nullptr);
  const auto got = bias.host();
  p.bias = utilities.get();
  kernels::utility_values(p, nullptr);
  std::vector<double> want(n), want_dx(n), want_u(n);
  const auto logits = to_double(x);
  for (std::size_t i = 0; i < n; ++i) {
    const double free = 1 / (1 + std::exp(-logits[i]));
    const double u = clip > 0 ? std::min(std::max(free, double{clip}), 1 - double{clip}) : free;
    const bool moves = u == free, counted = numbers[i / heads] >= 0;
    const double z = u >= 0.4 ? 1 : 0, k = weighted ? u : 1;
    double open = u + 1e-8, by_u = 1;  // soft, and the gradient of drawn ones
    if (mode == Mode::kAnneal) {
      open = (1 - alpha) * u + alpha * z * k + 1e-8;
      by_u = (1 - alpha) + (weighted ? alpha * z : 0);
    } else if (hard) {
      by_u = weighted ? z : 0;
    }
    want[i] = std::log(open);
    if (hard) want[i] = z == 0 ? -INFINITY : weighted ? std::log(u + 1e-8) : 0;
    if (sampled) {
      const auto row = static_cast<std::uint64_t>(numbers[i / heads]);
      const lh::PhiloxBlock block =
          lh::philox4x32({static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(row >> 32),
                          static_cast<std::uint32_t>(i % heads), 0},
                         77);
      want[i] = static_cast<double>(block[0] >> 8) * 0x1.0p-24 < u ? 0 : -INFINITY;
    }
    want_dx[i] = moves ? (g[i] * by_u / open + (counted ? pull : 0)) * u * (1 - u) : 0;
    want_u[i] = counted ? u : 0;
  }
  const bool exact = sampled || (hard && !weighted);
  for (std::size_t i = 0; i < n; ++i) {
    if (exact || !std::isfinite(want[i])) REQUIRE(got[i] == want[i]);
    if (!std::isfinite(want[i])) want[i] = 0;
  }
  std::vector<float> finite = got;
  for (float& value : finite) value = std::isfinite(value) ? value : 0;
  check_close(finite, want, kRounding<float>, 1e-6, "bias");
  check_close(utilities.host(), want_u, kRounding<float>, 1e-6, "utilities");
  check_close(dx.host(), want_dx, kRounding<T>, 1e-6, "d_logits");
}

template <class T>
void bias_case(int rows, int cols, int gap) {
  CAPTURE(rows);
  CAPTURE(cols);
  const auto stride = static_cast<std::size_t>(cols + gap);
  const auto x = random_values<T>(stride * rows, 6), bias = random_values<T>(cols, 7);
  const auto before = random_values<float>(cols, 8);
  Buffer<T> bx(x), bb(bias);
  Buffer<float> sum(before), parts(kernels::bias_bwd_workspace(rows, cols));
  kernels::bias_bwd<T>(bx.get(), static_cast<std::int64_t>(stride), sum.get(), parts.get(), rows,
                       cols, nullptr);
  std::vector<double> want = to_double(before);
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < cols; ++c) want[c] += xpu::to_float(x[r * stride + c]);
  check_close(sum.host(), want, 1e-5, 1e-5, "bias gradient");

  kernels::bias_add<T>(bx.get(), static_cast<std::int64_t>(stride), bb.get(), rows, cols, nullptr);
  want = to_double(x);
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < cols; ++c) want[r * stride + c] += xpu::to_float(bias[c]);
  check_close(bx.host(), want, kRounding<T>, 1e-6, "bias");
}

template <class From, class To>
void copy_case(kernels::ElementType from, kernels::ElementType to, int rows, int cols,
               bool transposed, std::size_t offset = 0) {
  CAPTURE(rows);
  CAPTURE(cols);
  CAPTURE(transposed);
  std::vector<From> x(static_cast<std::size_t>(rows) * cols);
  std::vector<double> want(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const int value = static_cast<int>(i * 7 % 100);  // exact in every type
    if constexpr (std::is_same_v<From, bf16>) x[i] = xpu::from_float<bf16>(static_cast<float>(value));
    else x[i] = static_cast<From>(value);
    const std::size_t r = i / cols, c = i % cols;
    want[transposed ? c * rows + r : i] = value;
  }
  Buffer<From> src(x, offset);
  Buffer<To> dst(x.size(), offset);
  kernels::CopyParams p;
  p.src = src.get();
  p.dst = dst.get();
  p.from = from;
  p.to = to;
  if (transposed) {
    // Seen in the order of the target [cols, rows].
    p.rank = 2;
    p.size[0] = cols;
    p.size[1] = rows;
    p.src_stride[0] = 1;
    p.src_stride[1] = cols;
    p.dst_stride[0] = rows;
    p.dst_stride[1] = 1;
  } else {
    p.size[0] = static_cast<std::int64_t>(x.size());
    p.src_stride[0] = p.dst_stride[0] = 1;
  }
  kernels::copy(p, nullptr);
  const auto got = dst.host();
  std::size_t bad = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    double value;
    if constexpr (std::is_same_v<To, bf16>) value = xpu::to_float(got[i]);
    else value = static_cast<double>(got[i]);
    bad += value != want[i];
  }
  CHECK(bad == 0);
}

}  // namespace

TEST_CASE("linear maps equal their formulas on vectors tails and odd addresses") {
  for_each_mode([] {
    for (const std::size_t n : kSizes) {
      linear_case<float>(n, 0);
      linear_case<bf16>(n, 0);
    }
    linear_case<float>(100, 1);
    linear_case<bf16>(100, 3);
  });
}

TEST_CASE("fill writes every element of every size") {
  for_each_mode([] {
    for (const std::size_t n : {1, 17, 1000}) {
      Buffer<std::uint8_t> a(n);
      kernels::fill(a.get(), 7, 1, static_cast<std::int64_t>(n), nullptr);
      CHECK(a.host() == std::vector<std::uint8_t>(n, 7));
      Buffer<std::uint16_t> b(n, 1);
      kernels::fill(b.get(), 0x3f80, 2, static_cast<std::int64_t>(n), nullptr);
      CHECK(b.host() == std::vector<std::uint16_t>(n, 0x3f80));
      Buffer<std::int64_t> c(n);
      kernels::fill(c.get(), 1ull << 40, 8, static_cast<std::int64_t>(n), nullptr);
      CHECK(c.host() == std::vector<std::int64_t>(n, std::int64_t{1} << 40));
    }
  });
}

TEST_CASE("gates equal their formulas and the slopes of central differences") {
  for_each_mode([] {
    for (const int gap : {0, 8, 3}) {
      gate_case<float>(3, 72, gap);
      gate_case<bf16>(3, 72, gap);
      gate_case<float>(5, 13, gap);
      gate_case<bf16>(5, 13, gap);
    }
  });
}

TEST_CASE("utility gates equal their formula, soft, drawn, annealed and hard") {
  using Mode = kernels::UtilityGateMode;
  for_each_mode([] {
    for (const std::size_t n : kSizes)
      for (const std::size_t offset : {0, 1}) {
        utility_gate_case<float>(n, 0.0f, Mode::kSoft, offset);
        utility_gate_case<bf16>(n, 0.3f, Mode::kAnneal, offset);
        utility_gate_case<float>(n, 1.0f, Mode::kAnneal, offset);
        utility_gate_case<bf16>(n, 1.0f, Mode::kHard, offset);
        utility_gate_case<float>(n, 1.0f, Mode::kSample, offset, false, 0.0f, 0.5f);
        utility_gate_case<bf16>(n, 1.0f, Mode::kSoft, offset, false, 0.2f, -0.5f);
        utility_gate_case<float>(n, 0.3f, Mode::kAnneal, offset, true, 0.2f);
        utility_gate_case<bf16>(n, 1.0f, Mode::kHard, offset, true);
      }
  });
}

TEST_CASE("saturated gates stay finite") {
  const std::vector<float> g = {-200, -90, 90, 200}, x = {1, 1, 1, 1};
  Buffer<float> bg(g), bx(x), y(4), dg(4), dx(4);
  kernels::GateParams<float> p;
  p.gate = bg.get();
  p.x = p.dy = bx.get();
  p.y = y.get();
  p.d_gate = dg.get();
  p.dx = dx.get();
  p.gate_stride = p.x_stride = p.dy_stride = p.y_stride = p.d_gate_stride = p.dx_stride = 4;
  p.rows = 1;
  p.cols = 4;
  kernels::swiglu_fwd(p, nullptr);
  kernels::swiglu_bwd(p, nullptr);
  check_close(y.host(), {0, 0, 90, 200}, 1e-6, 1e-30, "y");
  check_close(dg.host(), {0, 0, 1, 1}, 1e-6, 1e-30, "d_gate");
}

TEST_CASE("bias and its gradient equal sums over rows") {
  for_each_mode([] {
    for (const int gap : {0, 8}) {
      bias_case<float>(1, 5, gap);
      bias_case<bf16>(70, 64, gap);
      bias_case<float>(300, 40, gap);
      bias_case<bf16>(9, 33, gap);
    }
  });
}

TEST_CASE("copies convert between types and through transposes") {
  using kernels::ElementType;
  for_each_mode([] {
    for (const bool transposed : {false, true}) {
      for (const auto& [rows, cols] : {std::pair{1, 1}, {33, 65}, {64, 32}, {3, 100}}) {
        copy_case<float, float>(ElementType::kF32, ElementType::kF32, rows, cols, transposed);
        copy_case<float, bf16>(ElementType::kF32, ElementType::kBF16, rows, cols, transposed);
        copy_case<bf16, float>(ElementType::kBF16, ElementType::kF32, rows, cols, transposed, 1);
        copy_case<bf16, bf16>(ElementType::kBF16, ElementType::kBF16, rows, cols, transposed);
        copy_case<double, float>(ElementType::kF64, ElementType::kF32, rows, cols, transposed);
        copy_case<std::int32_t, std::int64_t>(ElementType::kI32, ElementType::kI64, rows, cols,
                                              transposed);
        copy_case<std::uint8_t, std::uint8_t>(ElementType::kU8, ElementType::kU8, rows, cols,
                                              transposed, 1);
      }
    }
  });
}

TEST_CASE("copies of three and four strided dimensions reach every element") {
  // Source [2, 3, 4, 5] contiguous, read in the order [4, 2, 5, 3].
  std::vector<float> x(120), want(120);
  for (int i = 0; i < 120; ++i) x[i] = static_cast<float>(i);
  int at = 0;
  for (int c = 0; c < 4; ++c)
    for (int a = 0; a < 2; ++a)
      for (int d = 0; d < 5; ++d)
        for (int b = 0; b < 3; ++b) want[at++] = x[((a * 3 + b) * 4 + c) * 5 + d];
  for_each_mode([&] {
    Buffer<float> src(x), dst(120);
    kernels::CopyParams p;
    p.src = src.get();
    p.dst = dst.get();
    p.rank = 4;
    const std::int64_t sizes[] = {4, 2, 5, 3}, from[] = {5, 60, 1, 20}, to[] = {30, 15, 3, 1};
    for (int d = 0; d < 4; ++d) {
      p.size[d] = sizes[d];
      p.src_stride[d] = from[d];
      p.dst_stride[d] = to[d];
    }
    kernels::copy(p, nullptr);
    CHECK(dst.host() == want);
  });
}
