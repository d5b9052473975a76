// Attention written as its definition, in double, one score at a time with the mask spelled out:
// the independent reference of attention_test.cpp. Also the cases and comparisons it needs.
#pragma once

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "backend/attention.h"
#include "support/compare.h"

namespace lh::test {

struct AttentionCase {
  int64_t query_rows = 0, key_rows = 0, heads = 1, kv_heads = 1, d = 16, v_d = 16;
  AttentionPlan plan;
};

/// Documents one after the other, queries and keys alike.
inline AttentionCase packed_case(const std::vector<int64_t>& lengths, int64_t heads,
                                 int64_t kv_heads, int64_t d, int64_t v_d,
                                 AttentionMask mask = {}) {
  AttentionCase c{0, 0, heads, kv_heads, d, v_d, {}};
  for (const int64_t n : lengths) {
    c.plan.segments.push_back({c.query_rows, n, c.query_rows, n, 0});
    c.query_rows += n;
  }
  c.key_rows = c.query_rows;
  c.plan.mask = mask;
  c.plan.scale = 1 / std::sqrt(static_cast<double>(d));
  return c;
}

struct AttentionArrays {
  std::vector<double> q, k, v, out, lse, d_out, dq, dk, dv;
  std::vector<double> bias, dbias;  // [key_rows, kv_heads]; empty: no bias
};

inline bool sees(const AttentionMask& mask, int64_t i, int64_t j) {
  if (j > i) return false;
  return mask.window == 0 || i - j < mask.window || j < mask.sinks;
}

/// Fills out and lse, and the gradients when d_out is given.
inline void attention_reference(const AttentionCase& c, AttentionArrays& a) {
  const int64_t group = c.heads / c.kv_heads;
  a.out.assign(static_cast<size_t>(c.query_rows * c.heads * c.v_d), 0);
  a.lse.assign(static_cast<size_t>(c.query_rows * c.heads),
               -std::numeric_limits<double>::infinity());
  a.dq.assign(a.q.size(), 0);
  a.dk.assign(a.k.size(), 0);
  a.dv.assign(a.v.size(), 0);
  a.dbias.assign(a.bias.size(), 0);
  for (const AttentionSegment& s : c.plan.segments) {
    for (int64_t i = 0; i < s.query_length; ++i) {
      for (int64_t h = 0; h < c.heads; ++h) {
        const int64_t row = (s.query_begin + i) * c.heads + h;
        const double* q = &a.q[static_cast<size_t>(row * c.d)];
        // With a bias, a key that it closes is not seen.
        std::vector<int64_t> keys;
        std::vector<bool> biased;
        for (int64_t j = 0; j < s.key_length; ++j) {
          if (!sees(c.plan.mask, s.query_offset + i, j)) continue;
          const int64_t key = (s.key_begin + j) * c.kv_heads + h / group;
          const bool left =
              !a.bias.empty() && s.query_offset + i - j >= c.plan.mask.bias_window;
          if (left && std::isinf(a.bias[static_cast<size_t>(key)])) continue;
          keys.push_back(key);
          biased.push_back(left);
        }
        if (keys.empty()) continue;
        std::vector<double> p;
        double top = -std::numeric_limits<double>::infinity(), total = 0;
        for (size_t n = 0; n < keys.size(); ++n) {
          double score = 0;
          for (int64_t x = 0; x < c.d; ++x)
            score += q[x] * a.k[static_cast<size_t>(keys[n] * c.d + x)];
          p.push_back(score * c.plan.scale +
                      (biased[n] ? a.bias[static_cast<size_t>(keys[n])] : 0));
          top = std::max(top, p.back());
        }
        for (double& value : p) total += value = std::exp(value - top);
        a.lse[static_cast<size_t>(row)] = top + std::log(total);
        double* out = &a.out[static_cast<size_t>(row * c.v_d)];
        for (size_t n = 0; n < keys.size(); ++n)
          for (int64_t x = 0; x < c.v_d; ++x)
            out[x] += p[n] / total * a.v[static_cast<size_t>(keys[n] * c.v_d + x)];
        if (a.d_out.empty()) continue;
        const double* g = &a.d_out[static_cast<size_t>(row * c.v_d)];
        double delta = 0;
        for (int64_t x = 0; x < c.v_d; ++x) delta += g[x] * out[x];
        for (size_t n = 0; n < keys.size(); ++n) {
          double dp = 0;
          for (int64_t x = 0; x < c.v_d; ++x) {
            dp += g[x] * a.v[static_cast<size_t>(keys[n] * c.v_d + x)];
            a.dv[static_cast<size_t>(keys[n] * c.v_d + x)] += p[n] / total * g[x];
          }
          if (biased[n]) a.dbias[static_cast<size_t>(keys[n])] += p[n] / total * (dp - delta);
          const double ds = p[n] / total * (dp - delta) * c.plan.scale;
          for (int64_t x = 0; x < c.d; ++x) {
            a.dq[static_cast<size_t>(row * c.d + x)] +=
                ds * a.k[static_cast<size_t>(keys[n] * c.d + x)];
            a.dk[static_cast<size_t>(keys[n] * c.d + x)] += ds * q[x];
          }
        }
      }
    }
  }
}

/// Normal values that the dtype represents exactly.
inline std::vector<double> random_values(int64_t count, DType dtype, uint32_t seed,
                                         double size = 1) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal(0, size);
  std::vector<double> values(static_cast<size_t>(count));
  for (double& value : values) {
    value = normal(engine);
    if (dtype != DType::kF64) value = static_cast<float>(value);
    if (dtype == DType::kBF16) value = static_cast<float>(bf16(static_cast<float>(value)));
  }
  return values;
}

inline AttentionArrays random_arrays(const AttentionCase& c, DType dtype, uint32_t seed,
                                     double size = 1) {
  AttentionArrays a;
  a.q = random_values(c.query_rows * c.heads * c.d, dtype, seed, size);
  a.k = random_values(c.key_rows * c.kv_heads * c.d, dtype, seed + 1, size);
  a.v = random_values(c.key_rows * c.kv_heads * c.v_d, dtype, seed + 2);
  a.d_out = random_values(c.query_rows * c.heads * c.v_d, dtype, seed + 3);
  return a;
}

/// Biases between 0 and -18, as gates give them, and one key in three closed.
inline void add_random_bias(const AttentionCase& c, AttentionArrays& a, uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> uniform(0, 1);
  a.bias.resize(static_cast<size_t>(c.key_rows * c.kv_heads));
  for (double& bias : a.bias)
    bias = uniform(engine) < 0.33f ? -std::numeric_limits<double>::infinity()
                                   : static_cast<double>(std::log(uniform(engine) + 1e-8f));
}

/// Gates of which a share of `density` is open, at 0 or at a finite bias; of every eight runs of 64
/// keys one is all open and one all closed (all of them at a density of 0).
inline void add_hard_bias(const AttentionCase& c, AttentionArrays& a, double density, bool finite,
                          uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> uniform(0, 1);
  a.bias.resize(static_cast<size_t>(c.key_rows * c.kv_heads));
  for (size_t i = 0; i < a.bias.size(); ++i) {
    const size_t tile = i / static_cast<size_t>(64 * c.kv_heads) % 8;
    const double share = density == 0 || tile == 2 ? 0 : tile == 1 ? 1 : density;
    const bool open = static_cast<double>(uniform(engine)) < share;
    const float value = finite ? std::log(uniform(engine) + 1e-8f) : 0.0f;
    a.bias[i] = open ? static_cast<double>(value) : -std::numeric_limits<double>::infinity();
  }
}

inline Tensor to_tensor(const std::vector<double>& values, const Shape& shape, DType dtype) {
  Tensor t = Tensor::empty(shape, dtype);
  dispatch_float(dtype, "to_tensor", [&]<typename T>() {
    for (size_t i = 0; i < values.size(); ++i)
      t.data<T>()[i] = T(static_cast<accumulate_t<T>>(values[i]));
  });
  return t;
}

/// Largest |x - r| / (|r| + size): size is the root mean square of the reference, or 0.1 where that
/// is less, since inputs are of order 1 and rounding is relative to them where a sum cancels.
/// Infinities must agree; NaN gives infinity.
inline double difference(const Tensor& tensor, const std::vector<double>& reference) {
  const std::vector<double> values = to_doubles(tensor);
  double worst = 0, squares = 0;
  size_t finite = 0;
  for (const double r : reference) {
    if (!std::isfinite(r)) continue;
    squares += r * r;
    ++finite;
  }
  const double rms = finite == 0 ? 0 : std::sqrt(squares / static_cast<double>(finite));
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] == reference[i]) continue;
    if (!std::isfinite(values[i]) || !std::isfinite(reference[i]))
      return std::numeric_limits<double>::infinity();
    const double size = std::max(rms, 0.1) + std::fabs(reference[i]);
    worst = std::max(worst, std::fabs(values[i] - reference[i]) / size);
  }
  return worst;
}

/// Tensors of one call, poisoned where the backend must write.
struct AttentionTensors {
  Tensor q, k, v, out, lse, d_out, dq, dk, dv;
  Tensor bias, dbias;  // undefined: none

  AttentionTensors(const AttentionCase& c, const AttentionArrays& a, DType dtype)
      : q(to_tensor(a.q, {c.query_rows, c.heads, c.d}, dtype)),
        k(to_tensor(a.k, {c.key_rows, c.kv_heads, c.d}, dtype)),
        v(to_tensor(a.v, {c.key_rows, c.kv_heads, c.v_d}, dtype)),
        out(poisoned({c.query_rows, c.heads, c.v_d}, dtype)),
        lse(poisoned({c.query_rows, c.heads}, dtype == DType::kF64 ? DType::kF64 : DType::kF32)),
        d_out(to_tensor(a.d_out, {c.query_rows, c.heads, c.v_d}, dtype)),
        dq(poisoned({c.query_rows, c.heads, c.d}, dtype)),
        dk(poisoned({c.key_rows, c.kv_heads, c.d}, dtype)),
        dv(poisoned({c.key_rows, c.kv_heads, c.v_d}, dtype)) {
    if (a.bias.empty()) return;
    bias = to_tensor(a.bias, {c.key_rows, c.kv_heads}, lse.dtype());
    dbias = poisoned({c.key_rows, c.kv_heads}, lse.dtype());
  }

  void forward(const AttentionPlan& plan) {
    cpu::attention_forward(q, k, v, plan, out, lse, bias);
  }
  void backward(const AttentionPlan& plan) {
    cpu::attention_backward(q, k, v, out, lse, d_out, plan, dq, dk, dv, bias,
                            bias.defined() ? &dbias : nullptr);
  }

  static Tensor poisoned(const Shape& shape, DType dtype) {
    return to_tensor(std::vector<double>(static_cast<size_t>(shape.numel()),
                                         std::numeric_limits<double>::quiet_NaN()),
                     shape, dtype);
  }
};

}  // namespace lh::test
