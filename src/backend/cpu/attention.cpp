// Softmax attention, one query row at a time with an online softmax: O(tokens) memory, any
// floating dtype, sums in f32 (f64 for f64). Work is split over heads (and, forward, over query
// rows); every sum has a fixed order, so results do not depend on the number of threads.
#include "backend/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace lh::cpu {
namespace {

/// Keys that query row i of a segment sees: [0, sinks) and [begin, end), relative to the segment.
struct VisibleKeys {
  int64_t sinks, begin, end;
};

VisibleKeys visible_keys(const AttentionSegment& segment, const AttentionMask& mask, int64_t i) {
  const int64_t position = segment.query_offset + i;
  const int64_t end = std::clamp<int64_t>(position + 1, 0, segment.key_length);
  const int64_t begin =
      mask.window == 0 ? 0 : std::clamp<int64_t>(position + 1 - mask.window, 0, end);
  return {std::min(mask.sinks, begin), begin, end};
}

template <typename F>
void for_each_key(const VisibleKeys& keys, F&& function) {
  for (int64_t j = 0; j < keys.sinks; ++j) function(j);
  for (int64_t j = keys.begin; j < keys.end; ++j) function(j);
}

template <typename T, typename A>
A dot(const T* a, const T* b, int64_t d) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < d; ++i) sum += static_cast<A>(a[i]) * static_cast<A>(b[i]);
  return sum;
}

/// A [rows, heads, d] tensor with contiguous inner dimensions.
template <typename T>
struct Rows {
  T* data;
  int64_t row_stride, d;
  explicit Rows(const Tensor& t)
      : data(t.data<T>()), row_stride(t.strides()[0]), d(t.size(2)) {
    LH_CHECK(t.strides()[2] == 1 && t.strides()[1] == d,
             "[attention] heads and channels must be contiguous, got strides {}",
             t.strides().str());
  }
  T* at(int64_t row, int64_t head) const { return data + row * row_stride + head * d; }
};

template <typename T>
void forward(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionPlan& plan,
             Tensor& out, Tensor& lse) {
  using A = accumulate_t<T>;
  const Rows<T> queries(q), keys(k), values(v), outputs(out);
  A* logs = lse.data<A>();
  const int64_t heads = q.size(1), group = heads / k.size(1);
  std::fill_n(out.data<T>(), out.numel(), T(0.0f));
  std::fill_n(logs, lse.numel(), -std::numeric_limits<A>::infinity());
  for (const AttentionSegment& segment : plan.segments) {
#pragma omp parallel
    {
      std::vector<A> sum(static_cast<size_t>(values.d));
#pragma omp for collapse(2) schedule(dynamic, 16)
      for (int64_t i = 0; i < segment.query_length; ++i) {
        for (int64_t h = 0; h < heads; ++h) {
          const VisibleKeys visible = visible_keys(segment, plan.mask, i);
          if (visible.end == 0) continue;
          const int64_t row = segment.query_begin + i;
          A top = -std::numeric_limits<A>::infinity(), total = 0;
          std::fill(sum.begin(), sum.end(), A(0));
          for_each_key(visible, [&](int64_t j) {
            const int64_t key = segment.key_begin + j;
            const A score = static_cast<A>(plan.scale) *
                            dot<T, A>(queries.at(row, h), keys.at(key, h / group), keys.d);
            if (score > top) {
              const A shrink = std::exp(top - score);
              total *= shrink;
              for (A& s : sum) s *= shrink;
              top = score;
            }
            const A p = std::exp(score - top);
            total += p;
            const T* value = values.at(key, h / group);
            for (int64_t c = 0; c < values.d; ++c)
              sum[static_cast<size_t>(c)] += p * static_cast<A>(value[c]);
          });
          T* result = outputs.at(row, h);
          for (int64_t c = 0; c < values.d; ++c)
            result[c] = static_cast<T>(sum[static_cast<size_t>(c)] / total);
          logs[row * heads + h] = top + std::log(total);
        }
      }
    }
  }
}

template <typename T>
void backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
              const Tensor& lse, const Tensor& d_out, const AttentionPlan& plan, Tensor& dq,
              Tensor& dk, Tensor& dv) {
  using A = accumulate_t<T>;
  const Rows<T> queries(q), keys(k), values(v), outputs(out), d_outputs(d_out);
  const Rows<T> dqs(dq), dks(dk), dvs(dv);
  const A* logs = lse.data<A>();
  const int64_t heads = q.size(1), kv_heads = k.size(1), group = heads / kv_heads;
  std::fill_n(dq.data<T>(), dq.numel(), T(0.0f));
  std::fill_n(dk.data<T>(), dk.numel(), T(0.0f));
  std::fill_n(dv.data<T>(), dv.numel(), T(0.0f));
  for (const AttentionSegment& segment : plan.segments) {
#pragma omp parallel for schedule(static)
    for (int64_t g = 0; g < kv_heads; ++g) {
      // Sums over all queries stay in the wide type until the head is done.
      std::vector<A> dk_sum(static_cast<size_t>(segment.key_length * keys.d));
      std::vector<A> dv_sum(static_cast<size_t>(segment.key_length * values.d));
      std::vector<A> dq_sum(static_cast<size_t>(keys.d));
      for (int64_t h = g * group; h < (g + 1) * group; ++h) {
        for (int64_t i = 0; i < segment.query_length; ++i) {
          const VisibleKeys visible = visible_keys(segment, plan.mask, i);
          if (visible.end == 0) continue;
          const int64_t row = segment.query_begin + i;
          const T* query = queries.at(row, h);
          const T* gradient = d_outputs.at(row, h);
          const A delta = dot<T, A>(outputs.at(row, h), gradient, values.d);
          const A log_sum = logs[row * heads + h];
          std::fill(dq_sum.begin(), dq_sum.end(), A(0));
          for_each_key(visible, [&](int64_t j) {
            const T* key = keys.at(segment.key_begin + j, g);
            const T* value = values.at(segment.key_begin + j, g);
            const A p =
                std::exp(static_cast<A>(plan.scale) * dot<T, A>(query, key, keys.d) - log_sum);
            const A ds = static_cast<A>(plan.scale) * p *
                         (dot<T, A>(gradient, value, values.d) - delta);
            A* dkey = &dk_sum[static_cast<size_t>(j * keys.d)];
            A* dvalue = &dv_sum[static_cast<size_t>(j * values.d)];
            for (int64_t c = 0; c < keys.d; ++c) {
              dq_sum[static_cast<size_t>(c)] += ds * static_cast<A>(key[c]);
              dkey[c] += ds * static_cast<A>(query[c]);
            }
            for (int64_t c = 0; c < values.d; ++c) dvalue[c] += p * static_cast<A>(gradient[c]);
          });
          for (int64_t c = 0; c < keys.d; ++c)
            dqs.at(row, h)[c] = static_cast<T>(dq_sum[static_cast<size_t>(c)]);
        }
      }
      for (int64_t j = 0; j < segment.key_length; ++j) {
        for (int64_t c = 0; c < keys.d; ++c)
          dks.at(segment.key_begin + j, g)[c] =
              static_cast<T>(dk_sum[static_cast<size_t>(j * keys.d + c)]);
        for (int64_t c = 0; c < values.d; ++c)
          dvs.at(segment.key_begin + j, g)[c] =
              static_cast<T>(dv_sum[static_cast<size_t>(j * values.d + c)]);
      }
    }
  }
}

}  // namespace

void attention_forward(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionPlan& plan,
                       Tensor& out, Tensor& lse) {
  dispatch_float(q.dtype(), "attention",
                 [&]<typename T>() { forward<T>(q, k, v, plan, out, lse); });
}

void attention_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                        const Tensor& lse, const Tensor& d_out, const AttentionPlan& plan,
                        Tensor& dq, Tensor& dk, Tensor& dv) {
  dispatch_float(q.dtype(), "attention", [&]<typename T>() {
    backward<T>(q, k, v, out, lse, d_out, plan, dq, dk, dv);
  });
}

}  // namespace lh::cpu
