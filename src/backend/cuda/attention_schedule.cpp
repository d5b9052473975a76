#include "backend/cuda/attention_schedule.h"

#include <algorithm>
#include <map>
#include <vector>

#include "backend/cuda/kernel_call.h"
#include "base/math.h"
#include "kernels/attention/schedule.h"

namespace lh::cuda {
namespace {

/// By query tile rows and key tile rows.
struct Schedules : BackendState {
  std::map<std::pair<int, int>, DeviceSchedule> made;
};

/// Puts `values` into `array`. With a capacity it is filled up with `filler`, and an array that is
/// there already keeps its address.
template <typename T>
void upload(std::vector<T> values, int64_t capacity, const T& filler, Device device,
            Tensor& array) {
  if (capacity > 0) {
    LH_CHECK(static_cast<int64_t>(values.size()) <= capacity,
             "[attention] {} work items, the plan has room for {}", values.size(), capacity);
    values.resize(static_cast<size_t>(capacity), filler);
  }
  if (capacity > 0 && array.defined())
    gpu::copy_in(device, array.raw(), values.data(), values.size() * sizeof(T));
  else
    array = device_copy(values.data(), values.size(), device);
}

int narrow_offset(int64_t offset) {
  if (offset < INT32_MIN || offset > INT32_MAX)
    fail<ShapeError>("[attention] query_offset = {} is more than a kernel takes", offset);
  return static_cast<int>(offset);
}

/// Work items of `tile` rows for any cut of `rows` into fewer than plan.segment_capacity segments.
int64_t tile_capacity(const AttentionPlan& plan, int64_t rows, int tile) {
  return plan.segment_capacity == 0 ? 0 : ceil_div(rows, int64_t{tile}) + plan.segment_capacity;
}

/// Fills a schedule, new or (after refresh_plan) one that is in use.
void build(const AttentionPlan& plan, int query_rows, int key_rows, Device device,
           DeviceSchedule& result) {
  std::vector<kernels::AttentionSegment> segments = kernel_segments(plan);
  const int64_t capacity = plan.segment_capacity;
  LH_CHECK(capacity == 0 || static_cast<int64_t>(segments.size()) < capacity,
           "[attention] {} segments, the plan has room for {}", segments.size(), capacity - 1);
  int64_t all_queries = 0, all_keys = 0;
  for (const kernels::AttentionSegment& s : segments) {
    all_queries += s.query_length;
    all_keys += s.key_length;
  }
  upload(segments, capacity, {}, device, result.segments);
  result.view.segments =
      reinterpret_cast<const kernels::AttentionSegment*>(result.segments.raw());
  if (query_rows == 0) return;
  const kernels::AttentionMask mask = mask_of(plan);
  const auto queries = kernels::query_tiles(segments, mask, query_rows);
  const int64_t query_capacity = tile_capacity(plan, all_queries, query_rows);
  // The first segment beyond those in use has no rows.
  upload(queries, query_capacity, {static_cast<int>(segments.size()), 0}, device,
         result.query_tiles);
  result.view.query_tiles =
      reinterpret_cast<const kernels::AttentionQueryTile*>(result.query_tiles.raw());
  result.view.query_tile_count = narrow(
      std::max(query_capacity, static_cast<int64_t>(queries.size())), "attention", "tiles");
  result.view.query_tile_rows = query_rows;
  if (key_rows == 0) return;
  const kernels::AttentionKeyTiles keys = kernels::key_tiles(segments, mask, key_rows);
  const int64_t key_capacity = tile_capacity(plan, all_keys, key_rows);
  upload(keys.tiles, key_capacity, {}, device, result.key_tiles);
  upload(keys.segments, capacity, 0, device, result.key_segments);
  result.view.key_tiles =
      reinterpret_cast<const kernels::AttentionKeyTile*>(result.key_tiles.raw());
  result.view.key_segments = reinterpret_cast<const int*>(result.key_segments.raw());
  result.view.key_tile_count = narrow(
      std::max(key_capacity, static_cast<int64_t>(keys.tiles.size())), "attention", "tiles");
  result.view.key_tile_rows = key_rows;
}

}  // namespace

std::vector<kernels::AttentionSegment> kernel_segments(const AttentionPlan& plan) {
  std::vector<kernels::AttentionSegment> segments;
  for (const AttentionSegment& s : plan.segments)
    segments.push_back({narrow(s.query_begin, "attention", "query_begin"),
                        narrow(s.query_length, "attention", "query_length"),
                        narrow(s.key_begin, "attention", "key_begin"),
                        narrow(s.key_length, "attention", "key_length"),
                        narrow_offset(s.query_offset)});
  return segments;
}

kernels::AttentionMask mask_of(const AttentionPlan& plan) {
  kernels::AttentionMask mask;
  mask.window = narrow(plan.mask.window, "attention", "window");
  mask.sinks = narrow(plan.mask.sinks, "attention", "sinks");
  mask.bias_window = narrow(plan.mask.bias_window, "attention", "bias_window");
  return mask;
}

const DeviceSchedule& schedule_of(const AttentionPlan& plan, int query_rows, int key_rows,
                                  Device device) {
  if (plan.backend_state == nullptr) plan.backend_state = std::make_shared<Schedules>();
  auto& schedules = static_cast<Schedules&>(*plan.backend_state);
  const auto found = schedules.made.find({query_rows, key_rows});
  if (found != schedules.made.end()) return found->second;
  DeviceSchedule schedule;
  build(plan, query_rows, key_rows, device, schedule);
  return schedules.made.emplace(std::pair{query_rows, key_rows}, std::move(schedule)).first->second;
}

void refresh_plan(const AttentionPlan& plan) {
  if (plan.backend_state == nullptr) return;
  for (auto& [rows, schedule] : static_cast<Schedules&>(*plan.backend_state).made)
    build(plan, rows.first, rows.second, schedule.segments.device(), schedule);
}

}  // namespace lh::cuda
