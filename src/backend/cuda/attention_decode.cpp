#include "backend/cuda/attention_decode.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "backend/cuda/attention_schedule.h"
#include "backend/cuda/kernel_call.h"
#include "kernels/attention/decode_split.h"
#include "kernels/attention/parallax.h"

namespace lh::cuda {
namespace {

constexpr int64_t kMaxTokens = 8;

/// What launches on one device share. The counters are 0 between launches, and the launches of a
/// device are ordered on its stream, so all may use the same.
struct DecodeDevice {
  int multiprocessors = 0;
  Tensor counters;
};

/// With at least `counters` counters.
DecodeDevice decode_device(Device device, size_t counters) {
  static std::mutex mutex;
  static auto* devices = new std::map<int, DecodeDevice>;  // outlive every static tensor
  const std::lock_guard lock(mutex);
  DecodeDevice& found = (*devices)[device.index];
  if (found.multiprocessors == 0) found.multiprocessors = gpu::device_info(device).multiprocessors;
  const size_t bytes = counters * sizeof(int);
  if (!found.counters.defined() || found.counters.bytes() < bytes) {
    const MemoryScope scope(MemoryOwner::kCache);
    found.counters = workspace(std::max<size_t>(2 * bytes, 1 << 16), device);
    gpu::fill_bytes(device, found.counters.raw(), 0, found.counters.bytes());
  }
  return found;
}

}  // namespace

bool is_decoding(const AttentionPlan& plan) {
  return plan.segment_capacity == 0 && !plan.segments.empty() &&
         std::all_of(plan.segments.begin(), plan.segments.end(),
                     [](const AttentionSegment& s) { return s.query_length <= kMaxTokens; });
}

template <typename Params>
Tensor share_keys(Params& p, std::span<const kernels::AttentionSegment> segments, Device device) {
  p.sequences = narrow(static_cast<int64_t>(segments.size()), "attention", "sequences");
  const int row_tiles = kernels::attention_decode_row_tiles(p);
  const int slots = decode_device(device, 0).multiprocessors * kernels::kAttentionDecodeBlocks;
  const auto split =
      kernels::attention_decode_split(segments, p.mask, p.kv_heads * row_tiles, slots);
  p.splits = split.splits;
  p.split_keys = split.split_keys;
  Tensor parts = workspace(kernels::attention_decode_workspace(p) * sizeof(float), device);
  const DecodeDevice shared = decode_device(device, kernels::attention_decode_counters(p));
  p.workspace = reinterpret_cast<float*>(parts.raw());
  p.counters = reinterpret_cast<int*>(shared.counters.raw());
  return parts;
}

template <typename Params>
Tensor prepare_decode(Params& p, const AttentionPlan& plan, Device device) {
  const std::vector<kernels::AttentionSegment> segments = kernel_segments(plan);
  p.segments = schedule_of(plan, 0, 0, device).view.segments;
  for (const kernels::AttentionSegment& s : segments) p.tokens = std::max(p.tokens, s.query_length);
  return share_keys(p, segments, device);
}

template Tensor share_keys(kernels::AttentionDecodeParams<float>&,
                           std::span<const kernels::AttentionSegment>, Device);
template Tensor share_keys(kernels::AttentionDecodeParams<xpu::bf16>&,
                           std::span<const kernels::AttentionSegment>, Device);
template Tensor prepare_decode(kernels::AttentionDecodeParams<float>&, const AttentionPlan&,
                               Device);
template Tensor prepare_decode(kernels::AttentionDecodeParams<xpu::bf16>&, const AttentionPlan&,
                               Device);
template Tensor prepare_decode(kernels::ParallaxDecodeParams<float>&, const AttentionPlan&, Device);
template Tensor prepare_decode(kernels::ParallaxDecodeParams<xpu::bf16>&, const AttentionPlan&,
                               Device);

}  // namespace lh::cuda
