#include "backend/lla.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/attention_operands.h"
#include "backend/elementwise.h"

namespace lh::cpu {
namespace {

constexpr const char* kOp = "lla";
using Row = std::vector<double>;

double dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}
void add_scaled_row(double* to, double factor, const double* from, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] += factor * from[i];
}

Tensor in_double(const Tensor& t) {
  Tensor wide = Tensor::empty(t.shape(), DType::kF64, t.device());
  if (!t.device().is_meta()) copy(t, wide);
  return wide;
}

/// All operands in f64, contiguous.
struct Operands {
  Tensor q, k, v;
  int64_t heads, kv_heads, d, v_d;

  Operands(const Tensor& q_in, const Tensor& k_in, const Tensor& v_in)
      : q(in_double(q_in)),
        k(in_double(k_in)),
        v(in_double(v_in)),
        heads(q.size(1)),
        kv_heads(k.size(1)),
        d(q.size(2)),
        v_d(v.size(2)) {}
  int64_t group() const { return heads / kv_heads; }
};

/// Lower triangle of the Cholesky factor of a positive definite a [d, d], in place.
void factorise(Row& a, int64_t d) {
  for (int64_t i = 0; i < d; ++i)
    for (int64_t j = 0; j <= i; ++j) {
      double* entry = &a[static_cast<size_t>(i * d + j)];
      const double rest = *entry - dot(&a[static_cast<size_t>(i * d)], &a[static_cast<size_t>(j * d)], j);
      *entry = i == j ? std::sqrt(rest) : rest / a[static_cast<size_t>(j * d + j)];
    }
}

/// x <- a^-1 x from the factor.
void solve(const Row& factor, int64_t d, double* x) {
  const auto l = [&](int64_t i, int64_t j) { return factor[static_cast<size_t>(i * d + j)]; };
  for (int64_t i = 0; i < d; ++i) {
    for (int64_t j = 0; j < i; ++j) x[i] -= l(i, j) * x[j];
    x[i] /= l(i, i);
  }
  for (int64_t i = d - 1; i >= 0; --i) {
    for (int64_t j = i + 1; j < d; ++j) x[i] -= l(j, i) * x[j];
    x[i] /= l(i, i);
  }
}

/// One query of one head and the keys it sees. Vectors over keys are in the order of `keys`.
struct Query {
  const Operands& in;
  std::vector<int64_t> keys;  // (row * kv_heads + kv head) of each
  const double* q = nullptr;
  Row p, k_mean, centred;  // centred [keys, d]: k_j - k_mean
  Row factor, probe;

  explicit Query(const Operands& operands) : in(operands) {}
  const double* k(size_t j) const { return in.k.data<double>() + keys[j] * in.d; }
  const double* v(size_t j) const { return in.v.data<double>() + keys[j] * in.v_d; }
  const double* c(size_t j) const { return &centred[j * static_cast<size_t>(in.d)]; }

  /// False when the query sees nothing.
  bool fit(const AttentionSegment& s, const AttentionPlan& plan, int64_t i, int64_t head,
           double ridge) {
    const int64_t position = s.query_offset + i, d = in.d;
    const AttentionMask& mask = plan.mask;
    keys.clear();
    for (int64_t j = 0; j < std::min(s.key_length, position + 1); ++j)
      if (mask.window == 0 || position - j < mask.window || j < mask.sinks)
        keys.push_back((s.key_begin + j) * in.kv_heads + head / in.group());
    if (keys.empty()) return false;
    q = in.q.data<double>() + ((s.query_begin + i) * in.heads + head) * d;
    weigh(plan.scale);

    const auto size = static_cast<size_t>(d);
    k_mean.assign(size, 0);
    for (size_t j = 0; j < keys.size(); ++j) add_scaled_row(k_mean.data(), p[j], k(j), d);
    centred.resize(keys.size() * size);
    factor.assign(size * size, 0);
    for (size_t j = 0; j < keys.size(); ++j) {
      double* row = &centred[j * size];
      for (int64_t x = 0; x < d; ++x) row[x] = k(j)[x] - k_mean[static_cast<size_t>(x)];
      for (int64_t x = 0; x < d; ++x)
        add_scaled_row(&factor[static_cast<size_t>(x * d)], p[j] * row[x], row, x + 1);
    }
    for (int64_t x = 0; x < d; ++x) factor[static_cast<size_t>(x * d + x)] += ridge;
    factorise(factor, d);
    probe = k_mean;
    add_scaled_row(probe.data(), -1, q, d);
    solve(factor, d, probe.data());
    return true;
  }

  void weigh(double scale) {
    p.resize(keys.size());
    double top = -std::numeric_limits<double>::infinity(), total = 0;
    for (size_t j = 0; j < keys.size(); ++j)
      top = std::max(top, p[j] = scale * dot(q, k(j), in.d));
    for (double& value : p) total += value = std::exp(value - top);
    for (double& value : p) value /= total;
  }

  /// The weight of v_j over p_j.
  double gain(size_t j) const { return 1 - dot(c(j), probe.data(), in.d); }
};

void forward_row(const Query& query, double* out) {
  for (size_t j = 0; j < query.keys.size(); ++j)
    add_scaled_row(out, query.p[j] * query.gain(j), query.v(j), query.in.v_d);
}

/// With g = d_out, a = g v, b = g sum p v, the loss reaches the probe as
///   d_probe = -sum_j p_j (a_j - b) (k_j - k_mean),
/// and through probe = A^-1 (k_mean - q), t = A^-1 d_probe, every weight as t (k_j - k_mean) gain_j.
void backward_row(const Query& query, const double* g, double scale, const LlaOptions& options,
                  double* dq, double* dk, double* dv) {
  const int64_t d = query.in.d, v_d = query.in.v_d;
  const size_t n = query.keys.size();
  Row a(n), gains(n), reach(n), t(static_cast<size_t>(d));
  double b = 0;
  for (size_t j = 0; j < n; ++j) {
    a[j] = dot(g, query.v(j), v_d);
    gains[j] = query.gain(j);
    b += query.p[j] * a[j];
  }
  for (size_t j = 0; j < n; ++j) add_scaled_row(t.data(), -query.p[j] * (a[j] - b), query.c(j), d);
  solve(query.factor, d, t.data());
  double mean = 0;  // of d loss / d p
  for (size_t j = 0; j < n; ++j) {
    reach[j] = dot(t.data(), query.c(j), d);
    mean += query.p[j] * (gains[j] * (a[j] - b) + reach[j] * gains[j]);
  }
  // A larger weight shrinks a ridge that is not scaled by the sum of the weights.
  const double kept_ridge =
      options.frozen_ridge ? options.ridge * dot(t.data(), query.probe.data(), d) : 0;
  add_scaled_row(dq, -1, t.data(), d);
  for (size_t j = 0; j < n; ++j) {
    const double p = query.p[j];
    const double dp = gains[j] * (a[j] - b) + reach[j] * gains[j] - mean;
    const double d_score = scale * p * (dp + kept_ridge);
    double* dk_row = dk + query.keys[j] * d;
    add_scaled_row(dq, d_score, query.k(j), d);
    add_scaled_row(dk_row, d_score, query.q, d);
    add_scaled_row(dk_row, p * gains[j], t.data(), d);
    add_scaled_row(dk_row, -p * (a[j] - b + reach[j]), query.probe.data(), d);
    add_scaled_row(dv + query.keys[j] * v_d, p * gains[j], g, v_d);
  }
}

void check_operands(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionPlan& plan,
                    const LlaOptions& options, const Tensor& out) {
  const Tensor lse = Tensor::empty({q.size(0), q.size(1)}, sum_dtype(q.dtype()), q.device());
  check_attention(q, k, v, plan, out, lse, kOp);
  if (!(options.ridge > 0))
    fail<ShapeError>("[{}] ridge: expected above 0, got {}", kOp, options.ridge);
}

}  // namespace

void lla_forward(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionPlan& plan,
                 const LlaOptions& options, Tensor& out) {
  check_operands(q, k, v, plan, options, out);
  const Operands in(q, k, v);
  Tensor wide = Tensor::zeros(out.shape(), DType::kF64, out.device());
  if (out.device().is_meta()) return;
  for (const AttentionSegment& s : plan.segments) {
#pragma omp parallel
    {
      Query query(in);
#pragma omp for schedule(dynamic, 8)
      for (int64_t item = 0; item < s.query_length * in.heads; ++item) {
        const int64_t i = item / in.heads, head = item % in.heads;
        double* row = wide.data<double>() + ((s.query_begin + i) * in.heads + head) * in.v_d;
        if (query.fit(s, plan, i, head, options.ridge)) forward_row(query, row);
      }
    }
  }
  copy(wide, out);
}

void lla_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& d_out,
                  const AttentionPlan& plan, const LlaOptions& options, LlaGradients& gradients) {
  check_operands(q, k, v, plan, options, d_out);
  check_operands(gradients.dq, gradients.dk, gradients.dv, plan, options, d_out);
  check_shape(gradients.dq, q.shape(), kOp, "dq");
  check_shape(gradients.dk, k.shape(), kOp, "dk");
  const Operands in(q, k, v);
  const Tensor g = in_double(d_out);
  Tensor dq = Tensor::zeros(q.shape(), DType::kF64, q.device()),
         dk = Tensor::zeros(k.shape(), DType::kF64, k.device()),
         dv = Tensor::zeros(v.shape(), DType::kF64, v.device());
  if (q.device().is_meta()) return;
  // A thread owns a key-value head, so that sums over its queries have one order.
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t kv_head = 0; kv_head < in.kv_heads; ++kv_head) {
    Query query(in);
    for (const AttentionSegment& s : plan.segments)
      for (int64_t i = 0; i < s.query_length; ++i)
        for (int64_t head = kv_head * in.group(); head < (kv_head + 1) * in.group(); ++head) {
          const int64_t row = (s.query_begin + i) * in.heads + head;
          if (!query.fit(s, plan, i, head, options.ridge)) continue;
          backward_row(query, g.data<double>() + row * in.v_d, plan.scale, options,
                       dq.data<double>() + row * in.d, dk.data<double>(), dv.data<double>());
        }
  }
  copy(dq, gradients.dq);
  copy(dk, gradients.dk);
  copy(dv, gradients.dv);
}

}  // namespace lh::cpu
