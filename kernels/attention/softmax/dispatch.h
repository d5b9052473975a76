// What the files of the portable attention share on the host: the compiled head sizes and the
// launches each file provides.
#pragma once
#include "kernels/attention/attention.h"
#include "kernels/xpu/xpu.h"

namespace lh::kernels::softmax {

/// Calls body<kD, kDV> with the smallest compiled sizes that hold both; tiles are padded with
/// zeros.
template <class Body>
void with_instance(int head_dim, int value_dim, const Body& body) {
  const int larger = head_dim > value_dim ? head_dim : value_dim;
  if (larger <= 64) {
    body.template operator()<64, 64>();
  } else if (larger <= 96) {
    body.template operator()<96, 96>();
  } else if (larger <= 128) {
    body.template operator()<128, 128>();
  } else if (head_dim <= 192 && value_dim <= 128) {
    body.template operator()<192, 128>();
  } else {
    body.template operator()<256, 256>();
  }
}

inline unsigned blocks(int tiles, int heads) {
  return static_cast<unsigned>(tiles) * static_cast<unsigned>(heads);
}

int fwd_tile_bf16(int head_dim, int value_dim);
void launch_fwd(const AttentionFwdParams<xpu::bf16>& p, xpu::Stream stream);
void launch_fwd(const AttentionFwdParams<float>& p, xpu::Stream stream);
template <class T>
void launch_prepare(const AttentionBwdParams<T>& p, xpu::Stream stream);
void launch_bwd(const AttentionBwdParams<xpu::bf16>& p, xpu::Stream stream);
void launch_bwd(const AttentionBwdParams<float>& p, xpu::Stream stream);

}  // namespace lh::kernels::softmax
