// Attention of a few query rows over a long cache: bound by reading k and v once. The visible keys
// are cut into chunks of fixed size, each with its own softmax, and the chunks are merged in order
// ("flash decoding", Dao et al. 2023), so that one sequence keeps every core busy and the result
// does not depend on their number.
#include <algorithm>
#include <cmath>

#include "backend/cpu/attention_chunks.h"
#include "backend/cpu/paged_rows.h"
#include "backend/cpu/simd/elementwise.h"
#include "backend/cpu/simd/gemv.h"
#include "backend/cpu/simd/loss.h"

namespace lh::cpu {
namespace {

/// Adds the bias to the scores of the keys in `range` that the query has left behind.
void add_bias(const AttentionCall<float>& call, const ChunkTask& task, const KeyRange& range,
              int64_t position, float* scores) {
  const auto inverse = static_cast<float>(1 / call.plan.scale);  // scores are not scaled yet
  const int64_t end = std::min(range.end, position - call.plan.mask.bias_window + 1);
  for (int64_t j = range.begin; j < end; ++j)
    scores[j - range.begin] +=
        call.bias[(task.segment->key_begin + j) * call.kv_heads + task.kv_head] * inverse;
}

/// Calls f(row, count) for the runs of rows that hold the keys in `range`.
template <typename F>
void for_each_run(const AttentionCall<float>& call, const ChunkTask& task, const KeyRange& range,
                  F&& f) {
  if (range.count() == 0) return;
  if (call.pages == nullptr) return f(task.segment->key_begin + range.begin, range.count());
  call.pages->for_each_run(task.segment - call.plan.segments.data(), range.begin, range.end, f);
}

/// What a task leaves behind for each of its rows.
struct Partial {
  float top, sum;  // largest raw score, sum of e^(scale (score - top)); sum 0: nothing seen
};

/// T is float or uint16_t (bfloat16 bits). `sums` gets the unnormalised output of each row.
template <typename T>
void run_task(const AttentionCall<float>& call, const ChunkTask& task, float* q, float* scores,
              Partial* partials, float* sums) {
  const AttentionSegment& s = *task.segment;
  const int64_t d = call.q.d, v_d = call.v.d;
  for (int64_t r = 0; r < s.query_length * call.group; ++r) {
    const int64_t i = r / call.group, head = task.kv_head * call.group + r % call.group;
    const VisibleKeys keys(call.plan.mask, s.query_offset + i, task.begin, task.end);
    float* sum = sums + r * v_d;
    std::fill_n(sum, v_d, 0.0f);
    partials[r] = {0, 0};
    if (keys.count() == 0) continue;
    const T* query = row_of<T>(call.q, s.query_begin + i, head);
    if constexpr (std::is_same_v<T, float>) std::copy_n(query, d, q);
    else LH_SIMD_CALL(convert(query, q, d));
    float* at = scores;
    for (const KeyRange& range : {keys.sinks, keys.window}) {
      if (range.count() == 0) continue;
      float* next = at;
      for_each_run(call, task, range, [&](int64_t row, int64_t count) {
        LH_SIMD_CALL(dot_rows(q, row_of<T>(call.k, row, task.kv_head), call.k.row_stride, count, d,
                              next));
        next += count;
      });
      if (call.bias != nullptr) add_bias(call, task, range, s.query_offset + i, at);
      at += range.count();
    }
    constexpr float kClosed = -std::numeric_limits<float>::infinity();
    if (call.bias != nullptr &&
        std::all_of(scores, at, [](float score) { return score == kClosed; }))
      continue;
    partials[r].sum = LH_SIMD_CALL(softmax_numerators(
        scores, keys.count(), static_cast<float>(call.plan.scale), &partials[r].top));
    at = scores;
    for (const KeyRange& range : {keys.sinks, keys.window})
      for_each_run(call, task, range, [&](int64_t row, int64_t count) {
        LH_SIMD_CALL(add_weighted_rows(at, row_of<T>(call.v, row, task.kv_head), call.v.row_stride,
                                       count, v_d, sum));
        at += count;
      });
  }
}

/// Merges tasks [first, last), the chunks of one segment and kv head, into out and lse.
template <typename T>
void merge(const AttentionCall<float>& call, const std::vector<ChunkTask>& tasks, size_t first,
           size_t last, const Partial* partials, const float* sums, float* total) {
  const AttentionSegment& s = *tasks[first].segment;
  const int64_t v_d = call.v.d;
  const auto scale = static_cast<float>(call.plan.scale);
  for (int64_t r = 0; r < s.query_length * call.group; ++r) {
    const int64_t row = s.query_begin + r / call.group;
    const int64_t head = tasks[first].kv_head * call.group + r % call.group;
    float top = -std::numeric_limits<float>::infinity(), weight = 0;
    for (size_t t = first; t < last; ++t) {
      const Partial& p = partials[static_cast<int64_t>(t) * kMaxChunkRows + r];
      if (p.sum != 0) top = std::max(top, p.top);
    }
    std::fill_n(total, v_d, 0.0f);
    for (size_t t = first; t < last; ++t) {
      const int64_t index = static_cast<int64_t>(t) * kMaxChunkRows + r;
      if (partials[index].sum == 0) continue;
      const float share = std::exp(scale * (partials[index].top - top));
      weight += share * partials[index].sum;
      LH_SIMD_CALL(accumulate(total, sums + index * v_d, share, v_d));
    }
    const float factor = weight == 0 ? 0.0f : 1 / weight;
    T* out = reinterpret_cast<T*>(call.out.at(row, head));
    if constexpr (std::is_same_v<T, float>) LH_SIMD_CALL(scale(total, factor, out, v_d));
    else LH_SIMD_CALL(scale_to_bf16(total, factor, out, v_d));
    call.lse[row * call.heads + head] = weight == 0 ? top : scale * top + std::log(weight);
  }
}

template <typename T>
void run(const AttentionCall<float>& call, const std::vector<ChunkTask>& tasks) {
  const auto count = static_cast<int64_t>(tasks.size());
  const int64_t v_d = call.v.d;
  const int team = static_cast<int>(std::min<int64_t>(omp_get_max_threads(), count));
  std::vector<Partial> partials(static_cast<size_t>(count * kMaxChunkRows));
  const Tensor sums = Tensor::empty({count * kMaxChunkRows, v_d}, DType::kF32);
  const int64_t own = round_up(call.q.d, int64_t{16}) + kChunkKeys;
  const Tensor scratch = Tensor::empty({team, own}, DType::kF32);
#pragma omp parallel for schedule(static) num_threads(team)
  for (int64_t t = 0; t < count; ++t) {
    float* q = scratch.data<float>() + omp_get_thread_num() * own;
    run_task<T>(call, tasks[static_cast<size_t>(t)], q, q + own - kChunkKeys,
                partials.data() + t * kMaxChunkRows, sums.data<float>() + t * kMaxChunkRows * v_d);
  }
  std::vector<float> total(static_cast<size_t>(v_d));
  for (size_t first = 0, last = 0; first < tasks.size(); first = last) {
    for (last = first + 1; last < tasks.size() && tasks[last].segment == tasks[first].segment &&
                           tasks[last].kv_head == tasks[first].kv_head;)
      ++last;
    merge<T>(call, tasks, first, last, partials.data(), sums.data<float>(), total.data());
  }
}

}  // namespace

void forward_decode(const AttentionCall<float>& call, const std::vector<int>& segments,
                    DType dtype) {
  const std::vector<ChunkTask> tasks = chunk_tasks(call, segments);
  if (tasks.empty()) return;
  if (dtype == DType::kBF16) run<uint16_t>(call, tasks);
  else run<float>(call, tasks);
}

}  // namespace lh::cpu
