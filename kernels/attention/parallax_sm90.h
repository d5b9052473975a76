// Parallax for Hopper (sm_90a): the copy engine, asynchronous matrix products, specialised warps.
#pragma once
#include "kernels/attention/parallax.h"

namespace lh::kernels {

/// bf16, head_dim and value_dim equal, 64, 96 or 128, no bias, no partial result, 16-byte aligned
/// rows. Anything else is for parallax_fwd.
bool parallax_fwd_sm90_supported(const ParallaxFwdParams<xpu::bf16>& p);

/// Rows of a query tile in the schedule.
constexpr int kParallaxFwdSm90Tile = 128;

/// As parallax_fwd; needs query_rows and key_rows. Throws xpu::Error when not supported.
void parallax_fwd_sm90(const ParallaxFwdParams<xpu::bf16>& p, xpu::Stream stream);

}  // namespace lh::kernels
