// Parallax of a few query rows over a long cache (attention_chunks.h). Every chunk measures its probe
// scores from their own weighted mean; chunks are merged as covariances are (Chan et al. 1983), so
// no chunk's sums cancel. Keys and values are read once from memory: a chunk stays in the cache while
// the query and the probe of each head pass over it.
#include <cmath>

#include "backend/cpu/attention_chunks.h"
#include "backend/cpu/parallax_internal.h"
#include "backend/cpu/simd/elementwise.h"
#include "backend/cpu/simd/gemv.h"
#include "backend/cpu/simd/loss.h"

namespace lh::cpu {
namespace {

/// What a task leaves behind for each of its rows, beside the sums p v and p (u - mean) v.
struct Partial {
  float top, sum;  // largest raw score, sum of e^(scale (score - top)); sum 0: nothing seen
  float mean;      // of the probe scores
};

/// f32 scratch of a thread.
struct Scratch {
  float *query, *weights, *u;
  static int64_t size(int64_t d) { return round_up(d, int64_t{16}) + 2 * kChunkKeys; }
  Scratch(float* base, int64_t d)
      : query(base), weights(base + size(d) - 2 * kChunkKeys), u(weights + kChunkKeys) {}
};

/// The products of one row of q or r with the visible keys.
template <typename T>
void dot_keys(const ParallaxCall<float>& call, const ChunkTask& task, const VisibleKeys& keys,
              const T* row, float* query, float* products) {
  const int64_t d = call.q.d;
  if constexpr (std::is_same_v<T, float>) std::copy_n(row, d, query);
  else LH_SIMD_CALL(convert(row, query, d));
  for (const KeyRange& range : {keys.sinks, keys.window}) {
    if (range.count() == 0) continue;
    const int64_t first = task.segment->key_begin + range.begin;
    LH_SIMD_CALL(dot_rows(query, row_of<T>(call.k, first, task.kv_head), call.k.row_stride,
                          range.count(), d, products));
    products += range.count();
  }
}

template <typename T>
void add_values(const ParallaxCall<float>& call, const ChunkTask& task, const VisibleKeys& keys,
                const float* weights, float* sum) {
  for (const KeyRange& range : {keys.sinks, keys.window}) {
    if (range.count() == 0) continue;
    const int64_t first = task.segment->key_begin + range.begin;
    LH_SIMD_CALL(add_weighted_rows(weights, row_of<T>(call.v, first, task.kv_head),
                                   call.v.row_stride, range.count(), call.v.d, sum));
    weights += range.count();
  }
}

/// T is float or uint16_t (bfloat16 bits). `sums` gets both unnormalised sums of each row, [2, v_d].
template <typename T>
void run_task(const ParallaxCall<float>& call, const ChunkTask& task, const Scratch& scratch,
              Partial* partials, float* sums) {
  const AttentionSegment& s = *task.segment;
  const int64_t v_d = call.v.d;
  for (int64_t r = 0; r < s.query_length * call.group; ++r) {
    const int64_t i = r / call.group, head = task.kv_head * call.group + r % call.group;
    const VisibleKeys keys(call.plan.mask, s.query_offset + i, task.begin, task.end);
    const int64_t count = keys.count();
    float* sum = sums + r * 2 * v_d;
    std::fill_n(sum, 2 * v_d, 0.0f);
    Partial& partial = partials[r] = {0, 0, 0};
    if (count == 0) continue;
    float *p = scratch.weights, *u = scratch.u;
    dot_keys(call, task, keys, row_of<T>(call.q, s.query_begin + i, head), scratch.query, p);
    dot_keys(call, task, keys, row_of<T>(call.r, s.query_begin + i, head), scratch.query, u);
    partial.sum = LH_SIMD_CALL(
        softmax_numerators(p, count, static_cast<float>(call.plan.scale), &partial.top));
    add_values<T>(call, task, keys, p, sum);
    double weighted = 0;
    for (int64_t j = 0; j < count; ++j) weighted += static_cast<double>(p[j]) * u[j];
    partial.mean = static_cast<float>(weighted / partial.sum);
    for (int64_t j = 0; j < count; ++j) p[j] *= u[j] - partial.mean;
    add_values<T>(call, task, keys, p, sum + v_d);
  }
}

template <typename T>
void store_scaled(const float* values, float factor, int64_t count, char* to) {
  T* out = reinterpret_cast<T*>(to);
  if constexpr (std::is_same_v<T, float>) LH_SIMD_CALL(scale(values, factor, out, count));
  else LH_SIMD_CALL(scale_to_bf16(values, factor, out, count));
}

/// Merges tasks [first, last), the chunks of one segment and kv head, into the results.
template <typename T>
void merge(const ParallaxCall<float>& call, const std::vector<ChunkTask>& tasks, size_t first,
           size_t last, const Partial* partials, const float* sums, std::vector<float>& total) {
  const AttentionSegment& s = *tasks[first].segment;
  const int64_t v_d = call.v.d;
  const auto scale = static_cast<float>(call.plan.scale);
  for (int64_t r = 0; r < s.query_length * call.group; ++r) {
    const int64_t row = s.query_begin + r / call.group;
    const int64_t head = tasks[first].kv_head * call.group + r % call.group;
    const auto index = [&](size_t t) { return static_cast<int64_t>(t) * kMaxChunkRows + r; };
    float top = -std::numeric_limits<float>::infinity();
    for (size_t t = first; t < last; ++t)
      if (partials[index(t)].sum != 0) top = std::max(top, partials[index(t)].top);
    const auto share = [&](size_t t) { return std::exp(scale * (partials[index(t)].top - top)); };
    float weight = 0;
    double weighted = 0;
    for (size_t t = first; t < last; ++t) {
      const Partial& p = partials[index(t)];
      if (p.sum == 0) continue;
      const float part = share(t) * p.sum;
      weight += part;
      weighted += static_cast<double>(part) * p.mean;
    }
    const float factor = weight == 0 ? 0.0f : 1 / weight;
    const auto mean = static_cast<float>(weighted * factor);
    std::fill(total.begin(), total.end(), 0.0f);
    float *plain = total.data(), *correction = plain + v_d;
    for (size_t t = first; t < last; ++t) {
      const Partial& p = partials[index(t)];
      if (p.sum == 0) continue;
      const float* sum = sums + index(t) * 2 * v_d;
      LH_SIMD_CALL(accumulate(plain, sum, share(t), v_d));
      LH_SIMD_CALL(accumulate(correction, sum + v_d, share(t), v_d));
      LH_SIMD_CALL(accumulate(correction, sum, share(t) * (p.mean - mean), v_d));
    }
    store_scaled<T>(plain, factor, v_d, call.intercept.at(row, head));
    LH_SIMD_CALL(accumulate(plain, correction, -1.0f, v_d));
    store_scaled<T>(plain, factor, v_d, call.out.at(row, head));
    call.probe_mean[row * call.heads + head] = mean;
    call.lse[row * call.heads + head] = weight == 0 ? top : scale * top + std::log(weight);
  }
}

template <typename T>
void run(const ParallaxCall<float>& call, const std::vector<ChunkTask>& tasks) {
  const auto count = static_cast<int64_t>(tasks.size());
  const int64_t row_sums = 2 * call.v.d, own = Scratch::size(call.q.d);
  const int team = static_cast<int>(std::min<int64_t>(omp_get_max_threads(), count));
  std::vector<Partial> partials(static_cast<size_t>(count * kMaxChunkRows));
  const Tensor sums = Tensor::empty({count * kMaxChunkRows, row_sums}, DType::kF32);
  const Tensor memory = Tensor::empty({team, own}, DType::kF32);
#pragma omp parallel for schedule(static) num_threads(team)
  for (int64_t t = 0; t < count; ++t)
    run_task<T>(call, tasks[static_cast<size_t>(t)],
                Scratch(memory.data<float>() + omp_get_thread_num() * own, call.q.d),
                partials.data() + t * kMaxChunkRows,
                sums.data<float>() + t * kMaxChunkRows * row_sums);
  std::vector<float> total(static_cast<size_t>(row_sums));
  for (size_t first = 0, last = 0; first < tasks.size(); first = last) {
    for (last = first + 1; last < tasks.size() && tasks[last].segment == tasks[first].segment &&
                           tasks[last].kv_head == tasks[first].kv_head;)
      ++last;
    merge<T>(call, tasks, first, last, partials.data(), sums.data<float>(), total);
  }
}

}  // namespace

void parallax_forward_decode(const ParallaxCall<float>& call, const std::vector<int>& segments,
                             DType dtype) {
  const std::vector<ChunkTask> tasks = chunk_tasks(call, segments);
  if (tasks.empty()) return;
  if (dtype == DType::kBF16) run<uint16_t>(call, tasks);
  else run<float>(call, tasks);
}

}  // namespace lh::cpu
