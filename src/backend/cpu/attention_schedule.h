// How the tiled passes share their tasks among threads; a task's arithmetic never depends on it.
#pragma once

#include <algorithm>
#include <vector>

#include "backend/cpu/attention_internal.h"

namespace lh::cpu {

/// work(task, scratch) for each task on all threads. Each thread has a scratch of its own, made by
/// Scratch(Carver&, call, arguments...).
template <typename Scratch, typename Call, typename Work, typename... Arguments>
void run_tasks(const Call& call, const std::vector<AttentionTask>& tasks, const Work& work,
               const Arguments&... arguments) {
  if (tasks.empty()) return;
  Carver measure(nullptr);
  Scratch(measure, call, arguments...);
  const int team = static_cast<int>(
      std::min<int64_t>(omp_get_max_threads(), static_cast<int64_t>(tasks.size())));
  const Tensor memory = Tensor::empty({team, measure.used()}, DType::kU8, call.device);
  if (call.device.is_meta()) return;
#pragma omp parallel num_threads(team)
  {
    Carver carver(memory.raw() + omp_get_thread_num() * measure.used());
    Scratch scratch(carver, call, arguments...);
    call.ops.thread_begin();
#pragma omp for schedule(dynamic, 1)
    for (size_t t = 0; t < tasks.size(); ++t) work(tasks[t], scratch);
    call.ops.thread_end();
  }
}

/// Query tasks of at most `items` items, a power of two, and of fewer where that keeps more threads
/// busy: items are independent, so no bit of the result follows the machine.
inline std::vector<AttentionTask> shared_query_tasks(const AttentionPlan& plan,
                                                     const std::vector<int>& segments,
                                                     int64_t kv_heads, int64_t group, int items) {
  std::vector<AttentionTask> tasks;
  for (; items >= 1; items /= 2) {
    tasks = query_tasks(plan, segments, kv_heads, group, items);
    if (static_cast<int64_t>(tasks.size()) >= 4 * omp_get_max_threads()) break;
  }
  return tasks;
}

/// Key tiles of a block of the backward passes: they share the cost of packing a query tile.
inline constexpr int kBlock = 4;

/// What a task of the backward passes computes.
enum class Wanted { kAll, kKeys, kQueries };

/// Gradients of the queries are summed over key tiles in ascending order, by one of two ways that
/// give the same bits:
///   one pass: a task owns all key blocks of a key-value head and keeps the sums of all its queries;
///   two passes: when such tasks are too few or too unequal for the threads, or the sums would take
///   too much scratch; key blocks are tasks of their own, then query tiles, which repeat the products
///   that lead to the gradients of scores.
/// pass(wanted, tasks, items): items is the number of query tiles a task keeps sums of, each of
/// `item_bytes`. key_tiles: of a task in the first of two passes.
template <typename Call, typename F>
void schedule_backward(const Call& call, int64_t item_bytes, int64_t key_tiles, const F& pass) {
  constexpr int64_t kMaxQuerySums = int64_t{16} << 20;
  int64_t items = 0, total = 0;
  for (const AttentionSegment& segment : call.plan.segments)
    items = std::max(items, ceil_div(segment.query_length, kTile) * call.group);
  const std::vector<AttentionTask> heads = key_tasks(call.plan, call.kv_heads, call.group, 0);
  for (const AttentionTask& task : heads) total += task.cost;
  // Two passes are about 1.4 times the products of one, which may lose a little of the balance.
  const bool balanced =
      heads.empty() || static_cast<double>(heads[0].cost) * omp_get_max_threads() <=
                           1.3 * static_cast<double>(total);
  if (balanced && items * item_bytes <= kMaxQuerySums) {
    pass(Wanted::kAll, heads, items);
    return;
  }
  std::vector<int> segments;
  for (size_t s = 0; s < call.plan.segments.size(); ++s) segments.push_back(static_cast<int>(s));
  pass(Wanted::kKeys, key_tasks(call.plan, call.kv_heads, call.group, key_tiles), int64_t{0});
  pass(Wanted::kQueries, query_tasks(call.plan, segments, call.kv_heads, call.group, 1), int64_t{1});
}

}  // namespace lh::cpu
