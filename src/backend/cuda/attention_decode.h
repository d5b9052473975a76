// Attention of a few new tokens per sequence over their caches.
#pragma once

#include <span>

#include "backend/attention.h"
#include "kernels/attention/decode.h"

namespace lh::cuda {

/// Whether a forward pass takes the decoding kernel: every segment has at most 8 queries, too few to
/// fill a tile of the training kernels, and its keys are what there is to share among blocks.
bool is_decoding(const AttentionPlan& plan);

/// Sets sequences, splits, workspace and counters of `p`, whose sizes and tokens are set, for segments that
/// are at most these. The result is the workspace, to be kept until the launch. Params as below.
template <typename Params>
Tensor share_keys(Params& p, std::span<const kernels::AttentionSegment> segments, Device device);

/// Chooses the splits and adds segments, workspace and counters to `p`. The result is the workspace, to
/// be kept until the launch. Params: AttentionDecodeParams and ParallaxDecodeParams of float, xpu::bf16.
template <typename Params>
Tensor prepare_decode(Params& p, const AttentionPlan& plan, Device device);

}  // namespace lh::cuda
