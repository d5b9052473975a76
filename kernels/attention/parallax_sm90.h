// Parallax for Hopper (sm_90a): the copy engine, asynchronous matrix products, specialised warps.
#pragma once
#include "kernels/attention/parallax.h"

namespace lh::kernels {

/// bf16, head_dim and value_dim equal, 64, 96 or 128, no bias, no partial result, 16-byte aligned
/// rows. Anything else is for parallax_fwd and parallax_bwd.
bool parallax_fwd_sm90_supported(const ParallaxFwdParams<xpu::bf16>& p);

bool parallax_bwd_sm90_supported(const ParallaxBwdParams<xpu::bf16>& p);

/// Rows of the tiles in the schedule: of queries in the forward pass, of queries and of keys in the
/// backward one.
constexpr int kParallaxFwdSm90Tile = 128;
constexpr int kParallaxBwdSm90QueryTile = 128, kParallaxBwdSm90KeyTile = 128;

/// As parallax_fwd and parallax_bwd; need query_rows and key_rows, and the backward pass
/// parallax_bwd_prepare. Throw xpu::Error when not supported.
void parallax_fwd_sm90(const ParallaxFwdParams<xpu::bf16>& p, xpu::Stream stream);
void parallax_bwd_sm90(const ParallaxBwdParams<xpu::bf16>& p, xpu::Stream stream);

}  // namespace lh::kernels
