// Softmax attention for Hopper (sm_90a): the copy engine, asynchronous matrix products, specialised
// warps.
#pragma once
#include "kernels/attention/params.h"

namespace lh::kernels {

/// bf16, head_dim and value_dim equal, 64, 96 or 128, no partial result, 16-byte aligned rows; with
/// or without a bias. Anything else is for attention_fwd.
bool attention_fwd_sm90_supported(const AttentionFwdParams<xpu::bf16>& p);

/// Rows of a query tile in the schedule.
constexpr int kAttentionFwdSm90Tile = 128;

/// As attention_fwd; needs query_rows and key_rows. Throws xpu::Error when not supported.
void attention_fwd_sm90(const AttentionFwdParams<xpu::bf16>& p, xpu::Stream stream);

/// The same for the backward pass, dbias only with a bias; anything else is for attention_bwd.
bool attention_bwd_sm90_supported(const AttentionBwdParams<xpu::bf16>& p);

/// Rows of the tiles in the schedule.
constexpr int kAttentionBwdSm90QueryTile = 128, kAttentionBwdSm90KeyTile = 128;

/// As attention_bwd, after attention_bwd_prepare; needs key_rows. Throws xpu::Error when not
/// supported.
void attention_bwd_sm90(const AttentionBwdParams<xpu::bf16>& p, xpu::Stream stream);

}  // namespace lh::kernels
