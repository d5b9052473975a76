// Rotary embedding as the rotation of complex numbers in fp64, and its inverse.
#include "kernels/rope/rope.h"

#include <cmath>
#include <complex>

#include "kernels/support/harness.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

template <class T>
void rope_case(int n, int heads, int d, int gap, bool in_place) {
  CAPTURE(n);
  CAPTURE(heads);
  CAPTURE(d);
  CAPTURE(gap);
  const int rows = 40;
  std::vector<float> table(static_cast<std::size_t>(rows) * d);
  for (int p = 0; p < rows; ++p)
    for (int i = 0; i < d / 2; ++i) {
      const double angle = p * std::pow(100.0, -2.0 * i / d);
      table[p * d + i] = static_cast<float>(std::cos(angle));
      table[p * d + d / 2 + i] = static_cast<float>(std::sin(angle));
    }
  std::vector<std::int32_t> positions(n);
  for (int i = 0; i < n; ++i) positions[i] = i * 13 % rows;
  const std::size_t stride = static_cast<std::size_t>(heads) * d + gap;
  const auto x = random_values<T>(stride * n, 1);
  std::vector<double> want = to_double(x), back = want;
  for (int t = 0; t < n; ++t)
    for (int h = 0; h < heads; ++h)
      for (int i = 0; i < d / 2; ++i) {
        const std::size_t low = t * stride + h * d + i, high = low + d / 2;
        const std::complex<double> turn(table[positions[t] * d + i],
                                        table[positions[t] * d + d / 2 + i]);
        const std::complex<double> v(xpu::to_float(x[low]), xpu::to_float(x[high]));
        want[low] = (v * turn).real();
        want[high] = (v * turn).imag();
        back[low] = (v * std::conj(turn)).real();
        back[high] = (v * std::conj(turn)).imag();
      }
  for (const bool inverse : {false, true}) {
    Buffer<T> bx(x), by(x);
    Buffer<float> bt(table);
    Buffer<std::int32_t> bp(positions);
    kernels::RopeParams<T> p;
    p.x = in_place ? by.get() : bx.get();
    p.y = by.get();
    p.table = bt.get();
    p.positions = bp.get();
    p.x_stride = p.y_stride = static_cast<std::int64_t>(stride);
    p.n = n;
    p.table_rows = rows;
    p.heads = heads;
    p.d = d;
    p.inverse = inverse;
    kernels::rope(p, nullptr);
    check_close(by.host(), inverse ? back : want, kRounding<T>, sizeof(T) == 2 ? 2e-3 : 1e-6,
                inverse ? "inverse" : "rope");
  }
}

}  // namespace

TEST_CASE("rope rotates every pair by its position in both directions") {
  for_each_mode([] {
    for (const bool in_place : {false, true}) {
      rope_case<float>(5, 3, 16, 0, in_place);
      rope_case<bf16>(5, 3, 16, 8, in_place);
      rope_case<float>(3, 2, 6, 1, in_place);
      rope_case<bf16>(33, 2, 64, 0, in_place);
    }
  });
}

TEST_CASE("a position outside the table makes only its token NaN") {
  const int d = 4;
  Buffer<float> x(std::vector<float>(8, 1.0f)), y(8), table(std::vector<float>(2 * d, 0.5f));
  Buffer<std::int32_t> positions(std::vector<std::int32_t>{2, 1});
  kernels::RopeParams<float> p;
  p.x = x.get();
  p.y = y.get();
  p.table = table.get();
  p.positions = positions.get();
  p.x_stride = p.y_stride = d;
  p.n = 2;
  p.table_rows = 2;
  p.heads = 1;
  p.d = d;
  kernels::rope(p, nullptr);
  const auto got = y.host();
  for (int i = 0; i < 4; ++i) CHECK(std::isnan(got[i]));
  for (int i = 4; i < 8; ++i) CHECK(!std::isnan(got[i]));
  p.d = 3;
  CHECK_THROWS_AS(kernels::rope(p, nullptr), xpu::Error);
}
