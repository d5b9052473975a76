// Attention of a few new tokens per sequence over their caches.
#pragma once

#include "backend/attention.h"
#include "kernels/attention/decode.h"
#include "runtime/gpu.h"

namespace lh::cuda {

/// Whether attention_forward takes the decoding kernel: every segment has at most 8 queries, too few to
/// fill a tile of the training kernels, and its keys are what there is to share among blocks.
bool is_decoding(const AttentionPlan& plan);

/// Chooses the splits, adds segments, workspace and counters to `p`, and launches. T = float, xpu::bf16.
template <typename T>
void decode(kernels::AttentionDecodeParams<T>& p, const AttentionPlan& plan, Device device,
            gpu::Stream stream);

}  // namespace lh::cuda
