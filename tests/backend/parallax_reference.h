// Parallax written as its definition, in double: a covariance matrix per query, its product with the
// probe, and gradients through the softmax weights one factor at a time. The independent reference of
// parallax_test.cpp.
#pragma once

#include "backend/attention_reference.h"
#include "backend/parallax.h"

namespace lh::test {

struct ParallaxArrays {
  std::vector<double> q, r, k, v, d_out, out, intercept, lse, probe_mean, dq, dr, dk, dv;
};

inline ParallaxArrays random_parallax(const AttentionCase& c, DType dtype, uint32_t seed,
                                      double probe_size = 1) {
  AttentionArrays a = random_arrays(c, dtype, seed);
  return {a.q, random_values(c.query_rows * c.heads * c.d, dtype, seed + 7, probe_size),
          a.k, a.v, a.d_out, {}, {}, {}, {}, {}, {}, {}, {}};
}

/// Rows of k and v that query i of a segment sees.
inline std::vector<int64_t> visible_keys(const AttentionCase& c, const AttentionSegment& s,
                                         int64_t i) {
  std::vector<int64_t> keys;
  for (int64_t j = 0; j < s.key_length; ++j)
    if (sees(c.plan.mask, s.query_offset + i, j)) keys.push_back(s.key_begin + j);
  return keys;
}

/// out = v_mean - Cov(v, k) r, by explicit covariance. The gradient follows that formula: first of
/// v_mean, k_mean and the covariance, then of the weights, then of the scores.
inline void parallax_reference(const AttentionCase& c, ParallaxArrays& a) {
  const auto at = [](int64_t i) { return static_cast<size_t>(i); };
  const auto d = at(c.d), e = at(c.v_d);
  a.out.assign(at(c.query_rows * c.heads) * e, 0);
  a.intercept = a.out;
  a.lse.assign(at(c.query_rows * c.heads), -std::numeric_limits<double>::infinity());
  a.probe_mean.assign(at(c.query_rows * c.heads), 0);
  a.dq.assign(a.q.size(), 0);
  a.dr.assign(a.r.size(), 0);
  a.dk.assign(a.k.size(), 0);
  a.dv.assign(a.v.size(), 0);
  for (const AttentionSegment& s : c.plan.segments)
    for (int64_t i = 0; i < s.query_length; ++i)
      for (int64_t h = 0; h < c.heads; ++h) {
        const std::vector<int64_t> keys = visible_keys(c, s, i);
        if (keys.empty()) continue;
        const size_t row = at((s.query_begin + i) * c.heads + h), n = keys.size();
        const double *q = &a.q[row * d], *r = &a.r[row * d], *g = &a.d_out[row * e];
        const auto kv = [&](size_t j) { return at(keys[j] * c.kv_heads + h / (c.heads / c.kv_heads)); };
        std::vector<double> p(n), k_mean(d), v_mean(e), cov(e * d);
        double top = -std::numeric_limits<double>::infinity(), total = 0;
        for (size_t j = 0; j < n; ++j) {
          for (size_t x = 0; x < d; ++x) p[j] += c.plan.scale * q[x] * a.k[kv(j) * d + x];
          top = std::max(top, p[j]);
        }
        for (double& value : p) total += value = std::exp(value - top);
        for (double& value : p) value /= total;
        a.lse[row] = top + std::log(total);
        for (size_t j = 0; j < n; ++j) {
          for (size_t x = 0; x < d; ++x) k_mean[x] += p[j] * a.k[kv(j) * d + x];
          for (size_t y = 0; y < e; ++y) v_mean[y] += p[j] * a.v[kv(j) * e + y];
        }
        for (size_t j = 0; j < n; ++j)
          for (size_t y = 0; y < e; ++y)
            for (size_t x = 0; x < d; ++x)
              cov[y * d + x] += p[j] * (a.v[kv(j) * e + y] - v_mean[y]) * (a.k[kv(j) * d + x] - k_mean[x]);
        for (size_t x = 0; x < d; ++x) a.probe_mean[row] += r[x] * k_mean[x];
        for (size_t y = 0; y < e; ++y) {
          a.intercept[row * e + y] = a.out[row * e + y] = v_mean[y];
          for (size_t x = 0; x < d; ++x) a.out[row * e + y] -= cov[y * d + x] * r[x];
        }
        for (size_t x = 0; x < d; ++x)
          for (size_t y = 0; y < e; ++y) a.dr[row * d + x] -= g[y] * cov[y * d + x];
        // d loss / d cov = -g r^T; the centred factors pass nothing to the means (their weighted sums
        // are zero), so a weight sees g v_j and its own term of the covariance.
        std::vector<double> dp(n);
        double mean = 0;
        for (size_t j = 0; j < n; ++j) {
          double gv = 0, gv_centred = 0, ru = 0;
          for (size_t y = 0; y < e; ++y) {
            gv += g[y] * a.v[kv(j) * e + y];
            gv_centred += g[y] * (a.v[kv(j) * e + y] - v_mean[y]);
          }
          for (size_t x = 0; x < d; ++x) ru += r[x] * (a.k[kv(j) * d + x] - k_mean[x]);
          dp[j] = gv - gv_centred * ru;
          mean += p[j] * dp[j];
          for (size_t y = 0; y < e; ++y) a.dv[kv(j) * e + y] += p[j] * (1 - ru) * g[y];
          for (size_t x = 0; x < d; ++x) a.dk[kv(j) * d + x] -= p[j] * gv_centred * r[x];
        }
        for (size_t j = 0; j < n; ++j)
          for (size_t x = 0; x < d; ++x) {
            const double ds = c.plan.scale * p[j] * (dp[j] - mean);
            a.dq[row * d + x] += ds * a.k[kv(j) * d + x];
            a.dk[kv(j) * d + x] += ds * q[x];
          }
      }
}

/// Tensors of one call, poisoned where the backend must write.
struct ParallaxTensors {
  ParallaxInputs in;
  Tensor d_out;
  ParallaxResult result;
  ParallaxGradients gradients;

  ParallaxTensors(const AttentionCase& c, const ParallaxArrays& a, DType dtype) {
    const Shape queries{c.query_rows, c.heads, c.d}, outputs{c.query_rows, c.heads, c.v_d};
    const Shape keys{c.key_rows, c.kv_heads, c.d}, values{c.key_rows, c.kv_heads, c.v_d};
    in = {to_tensor(a.q, queries, dtype), to_tensor(a.r, queries, dtype),
          to_tensor(a.k, keys, dtype), to_tensor(a.v, values, dtype)};
    d_out = to_tensor(a.d_out, outputs, dtype);
    const auto poisoned = AttentionTensors::poisoned;
    const DType sums = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
    result = {poisoned(outputs, dtype), poisoned(outputs, dtype),
              poisoned({c.query_rows, c.heads}, sums), poisoned({c.query_rows, c.heads}, sums)};
    gradients = {poisoned(queries, dtype), poisoned(queries, dtype), poisoned(keys, dtype),
                 poisoned(values, dtype)};
  }
  void forward(const AttentionPlan& plan) { cpu::parallax_forward(in, plan, result); }
  void backward(const AttentionPlan& plan) {
    cpu::parallax_backward(in, result, d_out, plan, gradients);
  }
  std::vector<Tensor> outputs() const {
    return {result.out,   result.intercept, result.lse,   result.probe_mean,
            gradients.dq, gradients.dr,     gradients.dk, gradients.dv};
  }
};

}  // namespace lh::test
