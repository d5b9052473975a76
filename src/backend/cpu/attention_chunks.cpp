#include "backend/cpu/attention_chunks.h"

namespace lh::cpu {

VisibleKeys::VisibleKeys(const AttentionMask& mask, int64_t position, int64_t begin, int64_t end) {
  const int64_t last = std::min(end, position + 1);
  const int64_t first = mask.window > 0 ? std::max<int64_t>(0, position - mask.window + 1) : 0;
  window = {std::max(begin, first), last};
  sinks = {begin, std::min({last, mask.sinks, first})};
}

std::vector<ChunkTask> chunk_tasks(const AttentionCall<float>& call,
                                   const std::vector<int>& segments) {
  std::vector<ChunkTask> tasks;
  for (const int index : segments) {
    const AttentionSegment& s = call.plan.segments[static_cast<size_t>(index)];
    for (int64_t head = 0; head < call.kv_heads; ++head)
      for (int64_t begin = 0; begin < std::max<int64_t>(1, s.key_length); begin += kChunkKeys) {
        const int64_t end = std::min(begin + kChunkKeys, s.key_length);
        bool seen = begin == 0;  // a segment that sees nothing still has its outputs to write
        for (int64_t i = 0; i < s.query_length && !seen; ++i)
          seen = VisibleKeys(call.plan.mask, s.query_offset + i, begin, end).count() > 0;
        if (seen) tasks.push_back({&s, head, begin, end});
      }
  }
  return tasks;
}

bool is_decoding(const AttentionSegment& segment, int64_t group, DType dtype) {
  return dtype != DType::kF64 && segment.query_length * group <= kMaxChunkRows;
}

}  // namespace lh::cpu
