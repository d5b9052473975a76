// Parallax in fp64 from its definition by means and covariances, which no kernel computes, with gradients
// derived from that; and the expanded formula in the precision of a kernel, the composite it is measured
// against.
#pragma once
#include "kernels/attention/reference.h"

namespace lh::test {

struct ParallaxInputs {
  std::vector<double> q, r, k, v, dout;
};

struct ParallaxResults {
  std::vector<double> out, intercept, lse, probe_mean, dq, dr, dk, dv;
};

/// NaN where a kernel must not write; keys of segments start at 0.
inline ParallaxResults parallax_results(const AttentionCase& c, const ParallaxInputs& in) {
  ParallaxResults r;
  const std::size_t rows = std::size_t(c.nq) * c.heads;
  r.out.assign(rows * c.value_dim, std::nan(""));
  r.intercept = r.out;
  r.lse.assign(rows, std::nan(""));
  r.probe_mean = r.lse;
  r.dq.assign(in.q.size(), std::nan(""));
  r.dr = r.dq;
  r.dk.assign(in.k.size(), std::nan(""));
  r.dv.assign(in.v.size(), std::nan(""));
  for (const auto& s : c.segments) {
    const std::size_t begin = std::size_t(s.key_begin) * c.kv_heads;
    std::fill_n(r.dk.begin() + begin * c.head_dim, s.key_length * c.kv_heads * c.head_dim, 0.0);
    std::fill_n(r.dv.begin() + begin * c.value_dim, s.key_length * c.kv_heads * c.value_dim, 0.0);
  }
  return r;
}

/// Calls body(query row x head, visible rows of k x kv head) for every query of every segment.
template <class Body>
void for_each_query(const AttentionCase& c, const Body& body) {
  std::vector<std::size_t> keys;
  for (const auto& s : c.segments) {
    for (int i = 0; i < s.query_length; ++i) {
      for (int h = 0; h < c.heads; ++h) {
        const int position = i + s.query_offset;
        keys.clear();
        for (int j = 0; j < s.key_length; ++j) {
          const bool seen = !c.mask.causal ||
                            (j <= position && (c.mask.window == 0 || position - j < c.mask.window ||
                                               j < c.mask.sinks));
          if (seen) {
            keys.push_back(std::size_t(s.key_begin + j) * c.kv_heads + h / (c.heads / c.kv_heads));
          }
        }
        body(std::size_t(s.query_begin + i) * c.heads + h, keys);
      }
    }
  }
}

/// out = v_mean - cov(v, k) r, where cov(v, k) = sum_j p_j (v_j - v_mean) (k_j - k_mean)^T is applied and not formed.
inline ParallaxResults parallax_definition(const AttentionCase& c, const ParallaxInputs& in) {
  const std::size_t d = c.head_dim, e = c.value_dim;
  ParallaxResults a = parallax_results(c, in);
  std::vector<double> p, dp, k_mean(d), v_mean(e);
  for_each_query(c, [&](std::size_t row, const std::vector<std::size_t>& keys) {
    const double *q = &in.q[row * d], *r = &in.r[row * d], *g = &in.dout[row * e];
    const std::size_t n = keys.size();
    p.assign(n, 0);
    dp.assign(n, 0);
    std::fill(k_mean.begin(), k_mean.end(), 0);
    std::fill(v_mean.begin(), v_mean.end(), 0);
    double top = -std::numeric_limits<double>::infinity(), total = 0;
    for (std::size_t j = 0; j < n; ++j) {
      for (std::size_t x = 0; x < d; ++x) p[j] += c.scale * q[x] * in.k[keys[j] * d + x];
      top = std::max(top, p[j]);
    }
    for (double& w : p) total += w = std::exp(w - top);
    for (double& w : p) w /= total;
    a.lse[row] = n == 0 ? top : top + std::log(total);
    for (std::size_t j = 0; j < n; ++j) {
      for (std::size_t x = 0; x < d; ++x) k_mean[x] += p[j] * in.k[keys[j] * d + x];
      for (std::size_t y = 0; y < e; ++y) v_mean[y] += p[j] * in.v[keys[j] * e + y];
    }
    a.probe_mean[row] = 0;
    for (std::size_t x = 0; x < d; ++x) {
      a.probe_mean[row] += r[x] * k_mean[x];
      a.dq[row * d + x] = a.dr[row * d + x] = 0;
    }
    for (std::size_t y = 0; y < e; ++y) a.intercept[row * e + y] = a.out[row * e + y] = v_mean[y];
    // The gradient of cov is -g r^T; its centred factors pass nothing to the means (their weighted sums
    // are zero), so a weight sees g v_j and its own term of the covariance.
    double mean = 0;
    for (std::size_t j = 0; j < n; ++j) {
      double gv = 0, centred = 0, ru = 0;
      for (std::size_t y = 0; y < e; ++y) {
        gv += g[y] * in.v[keys[j] * e + y];
        centred += g[y] * (in.v[keys[j] * e + y] - v_mean[y]);
      }
      for (std::size_t x = 0; x < d; ++x) ru += r[x] * (in.k[keys[j] * d + x] - k_mean[x]);
      for (std::size_t y = 0; y < e; ++y) a.out[row * e + y] -= p[j] * ru * (in.v[keys[j] * e + y] - v_mean[y]);
      for (std::size_t x = 0; x < d; ++x) a.dr[row * d + x] -= p[j] * centred * (in.k[keys[j] * d + x] - k_mean[x]);
      dp[j] = gv - centred * ru;
      mean += p[j] * dp[j];
      for (std::size_t y = 0; y < e; ++y) a.dv[keys[j] * e + y] += p[j] * (1 - ru) * g[y];
      for (std::size_t x = 0; x < d; ++x) a.dk[keys[j] * d + x] -= p[j] * centred * r[x];
    }
    for (std::size_t j = 0; j < n; ++j) {
      const double ds = c.scale * p[j] * (dp[j] - mean);
      for (std::size_t x = 0; x < d; ++x) {
        a.dq[row * d + x] += ds * in.k[keys[j] * d + x];
        a.dk[keys[j] * d + x] += ds * q[x];
      }
    }
  });
  return a;
}

/// out = sum_j p_j (1 + m - u_j) v_j, rounded as by an implementation with T operands and fp32 sums that
/// knows m before it forms the weights.
template <class R>
ParallaxResults parallax_composite(const AttentionCase& c, const ParallaxInputs& in) {
  const std::size_t d = c.head_dim, e = c.value_dim;
  ParallaxResults a = parallax_results(c, in);
  const auto dot = [](const double* x, const double* y, std::size_t n) {
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum = R::sum(sum + x[i] * y[i]);
    return sum;
  };
  std::vector<double> p, u;
  for_each_query(c, [&](std::size_t row, const std::vector<std::size_t>& keys) {
    const double *q = &in.q[row * d], *r = &in.r[row * d], *g = &in.dout[row * e];
    const std::size_t n = keys.size();
    p.assign(n, 0);
    u.assign(n, 0);
    double top = -std::numeric_limits<double>::infinity(), total = 0, m = 0;
    for (std::size_t j = 0; j < n; ++j) {
      p[j] = R::sum(c.scale * dot(q, &in.k[keys[j] * d], d));
      u[j] = dot(r, &in.k[keys[j] * d], d);
      top = std::max(top, p[j]);
    }
    for (double& w : p) total = R::sum(total + (w = R::sum(std::exp(w - top))));
    a.lse[row] = n == 0 ? top : R::sum(top + std::log(total));
    for (std::size_t j = 0; j < n; ++j) {
      p[j] = R::sum(p[j] / total);
      m = R::sum(m + p[j] * u[j]);
    }
    a.probe_mean[row] = m;
    double *out = &a.out[row * e], *intercept = &a.intercept[row * e];
    std::fill_n(out, e, 0.0);
    std::fill_n(intercept, e, 0.0);
    for (std::size_t j = 0; j < n; ++j) {
      const double plain = R::operand(p[j]), weight = R::operand(R::sum(p[j] * (1 + m - u[j])));
      for (std::size_t y = 0; y < e; ++y) {
        intercept[y] = R::sum(intercept[y] + plain * in.v[keys[j] * e + y]);
        out[y] = R::sum(out[y] + weight * in.v[keys[j] * e + y]);
      }
    }
    for (std::size_t y = 0; y < e; ++y) {
      intercept[y] = R::operand(intercept[y]);
      out[y] = R::operand(out[y]);
    }
    const double t = dot(g, out, e), b = dot(g, intercept, e);
    double *dq = &a.dq[row * d], *dr = &a.dr[row * d];
    std::fill_n(dq, d, 0.0);
    std::fill_n(dr, d, 0.0);
    for (std::size_t j = 0; j < n; ++j) {
      const double *k = &in.k[keys[j] * d], beyond = R::sum(m - u[j]);
      double *dk = &a.dk[keys[j] * d], *dv = &a.dv[keys[j] * e];
      const double dp = dot(g, &in.v[keys[j] * e], e), other = R::sum(dp - b);
      const double ds = R::operand(R::sum(p[j] * R::sum(R::sum(dp - t) + beyond * other)));
      const double du = R::operand(R::sum(-p[j] * other));
      const double weight = R::operand(R::sum(p[j] * (1 + beyond)));
      for (std::size_t x = 0; x < d; ++x) {
        dq[x] = R::sum(dq[x] + c.scale * ds * k[x]);
        dr[x] = R::sum(dr[x] + du * k[x]);
        dk[x] = R::sum(dk[x] + c.scale * ds * q[x]);
        dk[x] = R::sum(dk[x] + du * r[x]);
      }
      for (std::size_t y = 0; y < e; ++y) dv[y] = R::sum(dv[y] + weight * g[y]);
    }
  });
  for (auto* x : {&a.dq, &a.dr, &a.dk, &a.dv}) {
    for (double& value : *x) value = R::operand(value);
  }
  return a;
}

}  // namespace lh::test
