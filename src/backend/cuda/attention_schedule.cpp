#include "backend/cuda/attention_schedule.h"

#include <map>
#include <vector>

#include "backend/cuda/kernel_call.h"
#include "kernels/attention/schedule.h"

namespace lh::cuda {
namespace {

/// By query tile rows and key tile rows.
struct Schedules : BackendState {
  std::map<std::pair<int, int>, DeviceSchedule> made;
};

template <typename T>
Tensor upload(const std::vector<T>& values, Device device) {
  return device_copy(values.data(), values.size(), device);
}

int narrow_offset(int64_t offset) {
  if (offset < INT32_MIN || offset > INT32_MAX)
    fail<ShapeError>("[attention] query_offset = {} is more than a kernel takes", offset);
  return static_cast<int>(offset);
}

DeviceSchedule build(const AttentionPlan& plan, int query_rows, int key_rows, Device device) {
  const std::vector<kernels::AttentionSegment> segments = kernel_segments(plan);
  DeviceSchedule result;
  result.segments = upload(segments, device);
  result.view.segments =
      reinterpret_cast<const kernels::AttentionSegment*>(result.segments.raw());
  if (query_rows == 0) return result;
  const kernels::AttentionMask mask = mask_of(plan);
  const auto queries = kernels::query_tiles(segments, mask, query_rows);
  result.query_tiles = upload(queries, device);
  result.view.query_tiles =
      reinterpret_cast<const kernels::AttentionQueryTile*>(result.query_tiles.raw());
  result.view.query_tile_count = narrow(static_cast<int64_t>(queries.size()), "attention", "tiles");
  result.view.query_tile_rows = query_rows;
  if (key_rows == 0) return result;
  const kernels::AttentionKeyTiles keys = kernels::key_tiles(segments, mask, key_rows);
  result.key_tiles = upload(keys.tiles, device);
  result.key_segments = upload(keys.segments, device);
  result.view.key_tiles =
      reinterpret_cast<const kernels::AttentionKeyTile*>(result.key_tiles.raw());
  result.view.key_segments = reinterpret_cast<const int*>(result.key_segments.raw());
  result.view.key_tile_count = narrow(static_cast<int64_t>(keys.tiles.size()), "attention", "tiles");
  result.view.key_tile_rows = key_rows;
  return result;
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
  return mask;
}

const DeviceSchedule& schedule_of(const AttentionPlan& plan, int query_rows, int key_rows,
                                  Device device) {
  if (plan.backend_state == nullptr) plan.backend_state = std::make_shared<Schedules>();
  auto& schedules = static_cast<Schedules&>(*plan.backend_state);
  const auto found = schedules.made.find({query_rows, key_rows});
  if (found != schedules.made.end()) return found->second;
  return schedules.made.emplace(std::pair{query_rows, key_rows},
                                build(plan, query_rows, key_rows, device))
      .first->second;
}

}  // namespace lh::cuda
