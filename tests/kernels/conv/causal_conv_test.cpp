// The causal convolution against loops in fp64 over separate documents; gradients by central
// differences.
#include "kernels/conv/causal_conv.h"

#include <cmath>

#include "kernels/support/harness.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

struct Layer {
  std::vector<int> positions;
  int channels, width;
  bool silu;

  std::vector<double> forward(const std::vector<double>& x, const std::vector<double>& w,
                              const std::vector<double>& bias) const {
    std::vector<double> y(x.size());
    for (std::size_t t = 0; t < positions.size(); ++t)
      for (int c = 0; c < channels; ++c) {
        double pre = bias[c];
        for (int j = 0; j < width; ++j) {
          const int back = width - 1 - j;
          if (back <= positions[t]) pre += w[c * width + j] * x[(t - back) * channels + c];
        }
        y[t * channels + c] = silu ? pre / (1 + std::exp(-pre)) : pre;
      }
    return y;
  }
};

template <class T>
void case_of(const std::vector<int>& documents, int channels, int width, bool silu) {
  CAPTURE(channels);
  CAPTURE(width);
  CAPTURE(silu);
  Layer layer{{}, channels, width, silu};
  for (const int length : documents)
    for (int i = 0; i < length; ++i) layer.positions.push_back(i);
  const int n = static_cast<int>(layer.positions.size());
  const std::size_t all = static_cast<std::size_t>(n) * channels;
  const auto x = random_values<T>(all, 1), dy = random_values<T>(all, 2);
  const auto w = random_values<float>(static_cast<std::size_t>(channels) * width, 3);
  const auto bias = random_values<float>(channels, 4);
  const auto xd = to_double(x), dyd = to_double(dy), wd = to_double(w), bd = to_double(bias);
  const auto loss = [&](const auto& xs, const auto& ws, const auto& bs) {
    const auto y = layer.forward(xs, ws, bs);
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * dyd[i];
    return sum;
  };
  const auto slope = [&](const std::vector<double>& at, const auto& f) {
    std::vector<double> out;
    for (std::size_t i = 0; i < at.size(); ++i) {
      auto plus = at, minus = at;
      plus[i] += 1e-4;
      minus[i] -= 1e-4;
      out.push_back((f(plus) - f(minus)) / 2e-4);
    }
    return out;
  };

  Buffer<T> bx(x), by(all), bdy(dy), bdx(all);
  Buffer<float> bw(w), bb(bias), dw(std::vector<float>(w.size(), 1.0f)),
      db(std::vector<float>(channels, 1.0f)),
      work(kernels::causal_conv_bwd_workspace(n, channels));
  Buffer<std::int32_t> bp(std::vector<std::int32_t>(layer.positions.begin(), layer.positions.end()));
  kernels::CausalConvParams<T> p;
  p.x = bx.get();
  p.weight = bw.get();
  p.bias = bb.get();
  p.positions = bp.get();
  p.y = by.get();
  p.dy = bdy.get();
  p.dx = bdx.get();
  p.dweight = dw.get();
  p.dbias = db.get();
  p.workspace = work.get();
  p.n = n;
  p.channels = channels;
  p.width = width;
  p.silu = silu;
  kernels::causal_conv_fwd(p, nullptr);
  kernels::causal_conv_bwd(p, nullptr);
  const double absolute = sizeof(T) == 2 ? 1e-3 : 1e-5;
  check_close(by.host(), layer.forward(xd, wd, bd), kRounding<T>, 1e-5, "y");
  check_close(bdx.host(), slope(xd, [&](const auto& v) { return loss(v, wd, bd); }), kRounding<T>,
              absolute, "dx");
  auto want = slope(wd, [&](const auto& v) { return loss(xd, v, bd); });
  for (double& v : want) v += 1;  // added to what was there
  check_close(dw.host(), want, 1e-5, 1e-4, "dweight");
  want = slope(bd, [&](const auto& v) { return loss(xd, wd, v); });
  for (double& v : want) v += 1;
  check_close(db.host(), want, 1e-5, 1e-4, "dbias");
}

}  // namespace

TEST_CASE("the causal convolution sees its own document only, forward and backward") {
  for_each_mode([] {
    case_of<float>({5, 1, 9, 2}, 8, 4, true);
    case_of<bf16>({5, 1, 9, 2}, 8, 4, false);
    case_of<float>({7}, 5, 3, true);
    case_of<float>({3, 4}, 3, 1, false);
  });
  case_of<float>({90, 60}, 4, 2, true);
}

TEST_CASE("a convolution wider than four taps is refused") {
  kernels::CausalConvParams<float> p;
  p.width = 5;
  CHECK_THROWS_AS(kernels::causal_conv_fwd(p, nullptr), xpu::Error);
}
