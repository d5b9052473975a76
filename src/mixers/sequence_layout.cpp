#include "mixers/sequence_layout.h"

#include <algorithm>
#include <bit>

namespace lh {
namespace {

Tensor on_device(const std::vector<int32_t>& values, Device device) {
  const MemoryScope scope(MemoryOwner::kData);
  return Tensor::from(values, {static_cast<int64_t>(values.size())}).to(device);
}

struct Documents {
  std::vector<AttentionSegment> segments;
  std::vector<int32_t> positions;
  int64_t longest = 0;
};

Documents documents_at(std::span<const int64_t> offsets) {
  LH_CHECK(!offsets.empty() && offsets.front() == 0, "[layout] segment offsets start at 0");
  Documents result;
  result.positions.resize(static_cast<size_t>(offsets.back()));
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    const int64_t begin = offsets[s], length = offsets[s + 1] - begin;
    LH_CHECK(length > 0, "[layout] segment {} has {} rows", s, length);
    result.segments.push_back({begin, length, begin, length, 0});
    result.longest = std::max(result.longest, length);
    for (int64_t i = 0; i < length; ++i)
      result.positions[static_cast<size_t>(begin + i)] = static_cast<int32_t>(i);
  }
  return result;
}

/// Room for twice as many documents, so that a batch with a few more moves nothing. Each costs an
/// empty work item.
int64_t capacity_for(size_t segments) {
  return static_cast<int64_t>(std::bit_ceil(2 * segments + 2));
}

}  // namespace

SequenceLayout SequenceLayout::packed(std::span<const int64_t> offsets, Device device) {
  Documents documents = documents_at(offsets);
  SequenceLayout layout;
  layout.contents_->positions = on_device(documents.positions, device);
  layout.contents_->longest = documents.longest;
  layout.contents_->segments = std::move(documents.segments);
  return layout;
}

SequenceLayout SequenceLayout::reusable(std::span<const int64_t> offsets, Device device) {
  SequenceLayout layout = packed(offsets, device);
  layout.contents_->segment_capacity = capacity_for(layout.segments().size());
  return layout;
}

SequenceLayout SequenceLayout::shared(std::shared_ptr<const ContextLayout> context,
                                      Device device) {
  SequenceLayout layout;
  std::vector<int32_t> positions;
  for (const AttentionSegment& part : context->local_segments())
    for (int64_t i = 0; i < part.query_length; ++i)
      positions.push_back(static_cast<int32_t>(part.query_offset + i));
  Contents& contents = *layout.contents_;
  contents.positions = on_device(positions, device);
  contents.segments = context->local_segments();
  for (const AttentionSegment& document : context->whole_segments())
    contents.longest = std::max(contents.longest, document.key_length);
  contents.context = std::move(context);
  return layout;
}

SequenceLayout SequenceLayout::run(int64_t first, int64_t count, Device device) {
  SequenceLayout layout;
  std::vector<int32_t> positions(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    positions[static_cast<size_t>(i)] = static_cast<int32_t>(first + i);
  layout.contents_->positions = on_device(positions, device);
  layout.contents_->segments.push_back({0, count, 0, count, 0});
  layout.contents_->longest = first + count;
  return layout;
}

bool SequenceLayout::reassign(std::span<const int64_t> offsets) {
  Contents& contents = *contents_;
  LH_CHECK(contents.segment_capacity > 0, "[layout] only a reusable layout can be reassigned");
  Documents documents = documents_at(offsets);
  LH_CHECK(offsets.back() == rows(), "[layout] a layout of {} rows cannot take {}", rows(),
           offsets.back());
  contents.longest = documents.longest;
  contents.segments = std::move(documents.segments);
  contents.positions.copy_bytes_from(Tensor::from(documents.positions, {rows()}));
  const bool fits = static_cast<int64_t>(contents.segments.size()) < contents.segment_capacity;
  if (!fits) contents.segment_capacity = capacity_for(contents.segments.size());
  for (const auto& plan : contents.plans) {
    plan->segments = contents.segments;
    plan->segment_capacity = contents.segment_capacity;
    if (!fits) plan->backend_state = nullptr;
    else LH_DISPATCH(contents.positions.device(), "layout", refresh_plan(*plan));
  }
  return fits;
}

std::shared_ptr<const AttentionPlan> SequenceLayout::plan(const AttentionMask& mask,
                                                          double scale) const {
  if (context() != nullptr)
    fail<ConfigError>("parallel.context: this mixer cannot share a sequence between processes yet");
  for (const auto& plan : contents_->plans)
    if (plan->mask.window == mask.window && plan->mask.sinks == mask.sinks && plan->scale == scale)
      return plan;
  contents_->plans.push_back(std::make_shared<AttentionPlan>(
      AttentionPlan{contents_->segments, mask, scale, contents_->segment_capacity}));
  return contents_->plans.back();
}

}  // namespace lh
