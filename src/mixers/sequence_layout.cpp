#include "mixers/sequence_layout.h"

#include <algorithm>

namespace lh {
namespace {

Tensor on_device(const std::vector<int32_t>& values, Device device) {
  const MemoryScope scope(MemoryOwner::kData);
  return Tensor::from(values, {static_cast<int64_t>(values.size())}).to(device);
}

}  // namespace

SequenceLayout SequenceLayout::packed(std::span<const int64_t> offsets, Device device) {
  LH_CHECK(!offsets.empty() && offsets.front() == 0, "[layout] segment offsets start at 0");
  SequenceLayout layout;
  std::vector<int32_t> positions(static_cast<size_t>(offsets.back()));
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    const int64_t begin = offsets[s], length = offsets[s + 1] - begin;
    LH_CHECK(length > 0, "[layout] segment {} has {} rows", s, length);
    layout.segments_.push_back({begin, length, begin, length, 0});
    layout.longest_ = std::max(layout.longest_, length);
    for (int64_t i = 0; i < length; ++i)
      positions[static_cast<size_t>(begin + i)] = static_cast<int32_t>(i);
  }
  layout.positions_ = on_device(positions, device);
  return layout;
}

SequenceLayout SequenceLayout::shared(std::shared_ptr<const ContextLayout> context,
                                      Device device) {
  SequenceLayout layout;
  std::vector<int32_t> positions;
  for (const AttentionSegment& part : context->local_segments())
    for (int64_t i = 0; i < part.query_length; ++i)
      positions.push_back(static_cast<int32_t>(part.query_offset + i));
  layout.positions_ = on_device(positions, device);
  layout.segments_ = context->local_segments();
  for (const AttentionSegment& document : context->whole_segments())
    layout.longest_ = std::max(layout.longest_, document.key_length);
  layout.context_ = std::move(context);
  return layout;
}

SequenceLayout SequenceLayout::run(int64_t first, int64_t count, Device device) {
  SequenceLayout layout;
  std::vector<int32_t> positions(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    positions[static_cast<size_t>(i)] = static_cast<int32_t>(first + i);
  layout.positions_ = on_device(positions, device);
  layout.segments_.push_back({0, count, 0, count, 0});
  layout.longest_ = first + count;
  return layout;
}

std::shared_ptr<const AttentionPlan> SequenceLayout::plan(const AttentionMask& mask,
                                                          double scale) const {
  for (const auto& plan : plans_)
    if (plan->mask.window == mask.window && plan->mask.sinks == mask.sinks && plan->scale == scale)
      return plan;
  plans_.push_back(std::make_shared<const AttentionPlan>(AttentionPlan{segments_, mask, scale}));
  return plans_.back();
}

}  // namespace lh
