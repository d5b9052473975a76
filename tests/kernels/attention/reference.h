// Dense attention, forward and backward, written from the formulas in fp64. The same code with
// rounding after each step is the composite that a kernel of that precision is measured against.
#pragma once
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/attention/mask.h"
#include "kernels/support/harness.h"

namespace lh::test {

struct AttentionCase {
  std::vector<kernels::AttentionSegment> segments;
  int nq = 0, nk = 0, heads = 1, kv_heads = 1, head_dim = 64, value_dim = 64;
  kernels::AttentionMask mask;
  float scale = 0.125f;
};

struct AttentionInputs {
  std::vector<double> q, k, v, dout, bias, dlse;  // bias and dlse may be empty
};

struct AttentionResults {
  std::vector<double> out, lse, dq, dk, dv, dbias;
};

/// How intermediates are kept: exact, or as a kernel with fp32 sums and T operands would.
template <class T>
struct Rounded {
  static double sum(double x) { return static_cast<float>(x); }
  static double operand(double x) {
    return xpu::to_float(xpu::from_float<T>(static_cast<float>(x)));
  }
};
struct Exact {
  static double sum(double x) { return x; }
  static double operand(double x) { return x; }
};

template <class R>
AttentionResults reference_attention(const AttentionCase& c, const AttentionInputs& in,
                                     bool backward) {
  constexpr double kMinusInf = -std::numeric_limits<double>::infinity();
  const int h_count = c.heads, g = c.heads / c.kv_heads, d = c.head_dim, dv = c.value_dim;
  AttentionResults r;
  r.out.assign(std::size_t(c.nq) * h_count * dv, std::nan(""));
  r.lse.assign(std::size_t(c.nq) * h_count, std::nan(""));
  if (backward) {
    r.dq.assign(in.q.size(), std::nan(""));
    r.dk.assign(in.k.size(), std::nan(""));
    r.dv.assign(in.v.size(), std::nan(""));
    r.dbias.assign(std::size_t(c.nk) * c.kv_heads, std::nan(""));
    for (const auto& s : c.segments) {  // rows in a segment start at 0, the others stay unwritten
      for (int j = s.key_begin; j < s.key_begin + s.key_length; ++j) {
        std::fill_n(&r.dk[std::size_t(j) * c.kv_heads * d], c.kv_heads * d, 0.0);
        std::fill_n(&r.dv[std::size_t(j) * c.kv_heads * dv], c.kv_heads * dv, 0.0);
        std::fill_n(&r.dbias[std::size_t(j) * c.kv_heads], c.kv_heads, 0.0);
      }
    }
  }
  std::vector<double> s(c.nk), p(c.nk);
  for (const auto& seg : c.segments) {
    for (int i = 0; i < seg.query_length; ++i) {
      for (int h = 0; h < h_count; ++h) {
        const int position = i + seg.query_offset, kh = h / g;
        const std::size_t row = std::size_t(seg.query_begin + i) * h_count + h;
        const double* q = &in.q[row * d];
        const auto key_row = [&](int j) {
          return std::size_t(seg.key_begin + j) * c.kv_heads + kh;
        };
        double top = kMinusInf;
        for (int j = 0; j < seg.key_length; ++j) {
          s[j] = kMinusInf;
          const bool seen = !c.mask.causal ||
                            (j <= position && (c.mask.window == 0 || position - j < c.mask.window ||
                                               j < c.mask.sinks));
          if (!seen) continue;
          double dot = 0;
          for (int x = 0; x < d; ++x) dot = R::sum(dot + q[x] * in.k[key_row(j) * d + x]);
          s[j] = R::sum(dot * c.scale);
          if (!in.bias.empty() && position - j >= c.mask.bias_window) {
            s[j] = R::sum(s[j] + in.bias[key_row(j)]);
          }
          top = std::max(top, s[j]);
        }
        double sum = 0;
        for (int j = 0; j < seg.key_length; ++j) {
          p[j] = s[j] == kMinusInf ? 0 : R::sum(std::exp(s[j] - top));
          sum = R::sum(sum + p[j]);
        }
        r.lse[row] = sum == 0 ? kMinusInf : R::sum(top + std::log(sum));
        for (int j = 0; j < seg.key_length; ++j) p[j] = sum == 0 ? 0 : R::sum(p[j] / sum);
        double* out = &r.out[row * dv];
        std::fill_n(out, dv, 0.0);
        for (int j = 0; j < seg.key_length; ++j) {
          const double weight = R::operand(p[j]);
          if (weight == 0) continue;
          for (int x = 0; x < dv; ++x) out[x] = R::sum(out[x] + weight * in.v[key_row(j) * dv + x]);
        }
        for (int x = 0; x < dv; ++x) out[x] = R::operand(out[x]);
        if (!backward) continue;

        const double* dout = &in.dout[row * dv];
        double delta = 0;
        for (int x = 0; x < dv; ++x) delta = R::sum(delta + dout[x] * out[x]);
        if (!in.dlse.empty()) delta = R::sum(delta - in.dlse[row]);
        std::fill_n(&r.dq[row * d], d, 0.0);
        for (int j = 0; j < seg.key_length; ++j) {
          if (p[j] == 0) continue;
          const std::size_t kr = key_row(j);
          double dp = 0;
          for (int x = 0; x < dv; ++x) dp = R::sum(dp + dout[x] * in.v[kr * dv + x]);
          const double ds = R::sum(p[j] * (dp - delta)), ds_operand = R::operand(ds);
          const double p_operand = R::operand(p[j]);
          for (int x = 0; x < dv; ++x) {
            r.dv[kr * dv + x] = R::sum(r.dv[kr * dv + x] + p_operand * dout[x]);
          }
          for (int x = 0; x < d; ++x) {
            r.dk[kr * d + x] = R::sum(r.dk[kr * d + x] + ds_operand * q[x] * c.scale);
            r.dq[row * d + x] = R::sum(r.dq[row * d + x] + ds_operand * in.k[kr * d + x] * c.scale);
          }
          if (position - j >= c.mask.bias_window) r.dbias[kr] = R::sum(r.dbias[kr] + ds);
        }
      }
    }
  }
  if (backward) {
    for (auto* x : {&r.dq, &r.dk, &r.dv}) {
      for (double& value : *x) value = R::operand(value);
    }
  }
  return r;
}

/// The kernel is at most twice as far from fp64 as the composite, in the largest and in the mean
/// error; unwritten rows (NaN in `want`) are unwritten in `got`, infinities agree.
inline void check_as_precise(const std::vector<double>& got, const std::vector<double>& want,
                             const std::vector<double>& composite, double absolute,
                             const std::string& what) {
  REQUIRE(got.size() == want.size());
  double largest = 0, mean = 0, composite_largest = 0, composite_mean = 0;
  std::size_t bad = 0, first = got.size(), worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (!std::isfinite(want[i])) {
      const bool same = std::isnan(want[i]) ? std::isnan(got[i]) : got[i] == want[i];
      if (!same && bad++ == 0) first = i;
      continue;
    }
    const double error = std::fabs(got[i] - want[i]), other = std::fabs(composite[i] - want[i]);
    if (!(error <= largest)) largest = error, worst = i;
    mean += error / static_cast<double>(got.size());
    composite_largest = std::max(composite_largest, other);
    composite_mean += other / static_cast<double>(got.size());
  }
  CHECK_MESSAGE(bad == 0, what << ": " << bad << " unwritten or infinite elements differ, first at "
                               << first << " of " << got.size());
  CHECK_MESSAGE(largest <= 2 * composite_largest + absolute,
                what << ": error " << largest << " at " << worst << " of " << got.size() << " (got "
                     << (got.empty() ? 0.0 : got[worst]) << ", want "
                     << (got.empty() ? 0.0 : want[worst]) << "), composite " << composite_largest);
  CHECK_MESSAGE(mean <= 2 * composite_mean + absolute,
                what << ": mean error " << mean << ", composite " << composite_mean);
}

}  // namespace lh::test
