// Work items of the attention kernels for a plan, built once and kept with the plan: all layers of
// a step share it.
#pragma once

#include <vector>

#include "backend/attention.h"
#include "kernels/attention/params.h"

namespace lh::cuda {

/// Device arrays of one plan for one set of tile sizes.
struct DeviceSchedule {
  Tensor segments, query_tiles, key_tiles, key_segments;
  kernels::AttentionSchedule view;
};

/// Rows of 0: without such tiles; the segments are always there. Throws when the plan has more rows
/// than a kernel counts.
const DeviceSchedule& schedule_of(const AttentionPlan& plan, int query_rows, int key_rows,
                                  Device device);

std::vector<kernels::AttentionSegment> kernel_segments(const AttentionPlan& plan);
kernels::AttentionMask mask_of(const AttentionPlan& plan);

}  // namespace lh::cuda
