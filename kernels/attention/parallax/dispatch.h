// What the files of Parallax share on the host: the compiled head sizes and the launches each file
// provides.
#pragma once
#include "kernels/attention/parallax.h"
#include "kernels/xpu/xpu.h"

namespace lh::kernels::parallax {

/// Calls body<kD> with the smallest compiled size that holds both; tiles are padded with zeros.
template <class Body>
void with_instance(int head_dim, int value_dim, const Body& body) {
  const int larger = head_dim > value_dim ? head_dim : value_dim;
  if (larger <= 64) {
    body.template operator()<64>();
  } else if (larger <= 96) {
    body.template operator()<96>();
  } else {
    body.template operator()<128>();
  }
}

inline unsigned blocks(int tiles, int heads) {
  return static_cast<unsigned>(tiles) * static_cast<unsigned>(heads);
}

void launch_fwd(const ParallaxFwdParams<xpu::bf16>& p, xpu::Stream stream);
void launch_fwd(const ParallaxFwdParams<float>& p, xpu::Stream stream);
template <class T>
void launch_prepare(const ParallaxBwdParams<T>& p, xpu::Stream stream);
void launch_bwd(const ParallaxBwdParams<xpu::bf16>& p, xpu::Stream stream);
void launch_bwd(const ParallaxBwdParams<float>& p, xpu::Stream stream);
void launch_decode(const ParallaxDecodeParams<xpu::bf16>& p, xpu::Stream stream);
void launch_decode(const ParallaxDecodeParams<float>& p, xpu::Stream stream);

}  // namespace lh::kernels::parallax
