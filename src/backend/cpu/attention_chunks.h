// A few query rows over a long cache: the visible keys are cut into chunks of fixed size, each a unit
// of work, so that one sequence keeps every core busy and the result does not depend on their number.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "backend/cpu/attention_internal.h"

namespace lh::cpu {

inline constexpr int64_t kChunkKeys = 1024;     // keys of a task
inline constexpr int64_t kMaxChunkRows = 16;    // queries of a task; more are faster as tiles

struct KeyRange {
  int64_t begin, end;
  int64_t count() const { return std::max<int64_t>(0, end - begin); }
};

/// The keys in [begin, end) that a query at `position` sees: sinks, then the window.
struct VisibleKeys {
  KeyRange sinks, window;
  VisibleKeys(const AttentionMask& mask, int64_t position, int64_t begin, int64_t end);
  int64_t count() const { return sinks.count() + window.count(); }
};

struct ChunkTask {
  const AttentionSegment* segment;
  int64_t kv_head, begin, end;  // keys of the segment
};

/// Every chunk of which some query of the segments sees a key.
std::vector<ChunkTask> chunk_tasks(const AttentionCall<float>& call,
                                   const std::vector<int>& segments);

template <typename T>
const T* row_of(const HeadRows& rows, int64_t row, int64_t head) {
  return reinterpret_cast<const T*>(rows.at(row, head));
}

}  // namespace lh::cpu
