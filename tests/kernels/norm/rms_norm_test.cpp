// RMSNorm against formulas written in fp64; the gradient also against central differences.
#include "kernels/norm/rms_norm.h"

#include "kernels/support/harness.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

std::vector<double> reference_fwd(const std::vector<double>& h, const std::vector<double>& w,
                                  int rows, int dim, double eps) {
  std::vector<double> y(h.size());
  for (int r = 0; r < rows; ++r) {
    double sum = 0;
    for (int i = 0; i < dim; ++i) sum += h[r * dim + i] * h[r * dim + i];
    for (int i = 0; i < dim; ++i) y[r * dim + i] = w[i] * h[r * dim + i] / std::sqrt(sum / dim + eps);
  }
  return y;
}

/// Derivative of sum(dy * y) for every element of h or w, by central differences in fp64.
std::vector<double> differences(const std::vector<double>& h, const std::vector<double>& w,
                                const std::vector<double>& dy, int rows, int dim, double eps,
                                bool of_weight) {
  const double step = 1e-5;
  auto loss = [&](const std::vector<double>& hh, const std::vector<double>& ww, int first, int n) {
    const std::vector<double> part(hh.begin() + first * dim, hh.begin() + (first + n) * dim);
    const auto y = reference_fwd(part, ww, n, dim, eps);
    double sum = 0;
    for (int i = 0; i < n * dim; ++i) sum += y[i] * dy[first * dim + i];
    return sum;
  };
  std::vector<double> out;
  for (std::size_t i = 0; i < (of_weight ? w.size() : h.size()); ++i) {
    auto plus = of_weight ? w : h, minus = plus;
    plus[i] += step;
    minus[i] -= step;
    const int row = static_cast<int>(i) / dim;
    out.push_back(of_weight ? (loss(h, plus, 0, rows) - loss(h, minus, 0, rows)) / (2 * step)
                            : (loss(plus, w, row, 1) - loss(minus, w, row, 1)) / (2 * step));
  }
  return out;
}

template <class T>
void forward_case(int rows, int dim, bool with_residual, std::size_t offset) {
  const std::string what = std::to_string(rows) + "x" + std::to_string(dim);
  const std::size_t n = static_cast<std::size_t>(rows) * dim;
  const auto x = random_values<T>(n, 1), residual = random_values<T>(n, 2);
  const auto weight = random_values<T>(dim, 3);
  Buffer<T> bx(x, offset), br(residual, offset), bw(weight, offset), bh(n, offset), by(n, offset);
  Buffer<float> bi(rows);
  kernels::RmsNormFwdParams<T> p;
  p.x = bx.get();
  p.weight = bw.get();
  p.y = by.get();
  p.inv_rms = bi.get();
  p.rows = rows;
  p.dim = dim;
  if (with_residual) {
    p.residual = br.get();
    p.h = bh.get();
  }
  kernels::rms_norm_fwd(p, nullptr);

  std::vector<double> h = to_double(x);
  if (with_residual) {
    for (std::size_t i = 0; i < n; ++i) {
      h[i] = xpu::to_float(xpu::from_float<T>(xpu::to_float(x[i]) + xpu::to_float(residual[i])));
    }
    check_close(bh.host(), h, 0, 0, "h " + what);
  }
  check_close(by.host(), reference_fwd(h, to_double(weight), rows, dim, p.eps), kRounding<T>, 1e-6,
              "y " + what);
}

template <class T>
void backward_case(int rows, int dim, bool with_add, bool numeric) {
  const std::string what = std::to_string(rows) + "x" + std::to_string(dim);
  const std::size_t n = static_cast<std::size_t>(rows) * dim;
  const auto h = random_values<T>(n, 4), dy = random_values<T>(n, 5), add = random_values<T>(n, 6);
  const auto weight = random_values<T>(dim, 7);
  const double eps = 1e-6;
  const auto hd = to_double(h), wd = to_double(weight), dyd = to_double(dy);
  std::vector<float> inv_rms(rows);
  std::vector<double> dh(n), dw(dim, 0.0);
  for (int r = 0; r < rows; ++r) {
    double sum = 0, dot = 0;
    for (int i = 0; i < dim; ++i) {
      sum += hd[r * dim + i] * hd[r * dim + i];
      dot += wd[i] * dyd[r * dim + i] * hd[r * dim + i];
    }
    const double s = 1 / std::sqrt(sum / dim + eps);
    inv_rms[r] = static_cast<float>(s);
    for (int i = 0; i < dim; ++i) {
      dh[r * dim + i] = s * wd[i] * dyd[r * dim + i] - hd[r * dim + i] * s * s * s * dot / dim;
      dw[i] += dyd[r * dim + i] * hd[r * dim + i] * s;
    }
  }
  if (numeric) {
    dh = differences(hd, wd, dyd, rows, dim, eps, false);
    dw = differences(hd, wd, dyd, rows, dim, eps, true);
  }
  if (with_add) {
    for (std::size_t i = 0; i < n; ++i) dh[i] += xpu::to_float(add[i]);
  }
  Buffer<T> bh(h), bdy(dy), bw(weight), badd(add), bdh(n);
  Buffer<float> bi(inv_rms), bdw(dim), work(kernels::rms_norm_bwd_workspace(rows, dim));
  kernels::RmsNormBwdParams<T> p;
  p.dy = bdy.get();
  p.h = bh.get();
  p.weight = bw.get();
  p.inv_rms = bi.get();
  p.dh_add = with_add ? badd.get() : nullptr;
  p.dh = bdh.get();
  p.dweight = bdw.get();
  p.workspace = work.get();
  p.rows = rows;
  p.dim = dim;
  kernels::rms_norm_bwd(p, nullptr);
  check_close(bdh.host(), dh, kRounding<T>, numeric ? 1e-5 : 3e-6, "dh " + what);
  check_close(bdw.host(), dw, 1e-5, 1e-5, "dweight " + what);
}

}  // namespace

TEST_CASE("rms norm forward equals the formula for every vector width and ragged row") {
  for_each_mode([] {
    for (int dim : {1, 7, 64, 96, 128, 200, 256, 1003, 2048, 2052}) {
      for (bool residual : {false, true}) {
        forward_case<float>(3, dim, residual, 0);
        forward_case<bf16>(3, dim, residual, 0);
      }
    }
    forward_case<float>(2, 512, true, 1);
    forward_case<bf16>(2, 512, true, 1);
  });
}

TEST_CASE("rms norm backward equals the formula") {
  for_each_mode([] {
    for (int dim : {5, 64, 96, 128, 256, 1003, 1032}) {
      for (bool add : {false, true}) {
        backward_case<float>(5, dim, add, false);
        backward_case<bf16>(5, dim, add, false);
      }
    }
    backward_case<float>(600, 16, true, false);  // more rows than blocks
  });
}

TEST_CASE("rms norm backward equals central differences") { backward_case<float>(4, 24, true, true); }

TEST_CASE("rms norm runs in place on the residual stream") {
  const int rows = 4, dim = 64;
  const auto x = random_values<float>(rows * dim, 8), residual = random_values<float>(rows * dim, 9);
  Buffer<float> bx(x), bh(residual), bw(std::vector<float>(dim, 1.0f)), by(rows * dim);
  kernels::RmsNormFwdParams<float> p;
  p.x = bx.get();
  p.residual = bh.get();
  p.h = bh.get();
  p.weight = bw.get();
  p.y = by.get();
  p.rows = rows;
  p.dim = dim;
  kernels::rms_norm_fwd(p, nullptr);
  std::vector<double> h = to_double(x);
  for (std::size_t i = 0; i < h.size(); ++i) h[i] = x[i] + residual[i];
  check_close(bh.host(), h, 0, 0, "h");
}

TEST_CASE("rms norm refuses rows that do not fit and says the size") {
  kernels::RmsNormFwdParams<float> p;
  p.rows = 1;
  p.dim = 100000;
  CHECK_THROWS_AS(kernels::rms_norm_fwd(p, nullptr), xpu::Error);
  p.dim = 0;
  CHECK_THROWS_AS(kernels::rms_norm_fwd(p, nullptr), xpu::Error);
}
