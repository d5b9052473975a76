// Launchers of Parallax: refuse what the kernels cannot do, then hand over to the file of the type.
// Formulas and plans: fwd_bf16.cu, bwd_bf16.cu, decode_bf16.cu.
// Roofline: no kernel of its own.
#include "kernels/attention/parallax.h"

#include "kernels/attention/checks.h"
#include "kernels/attention/decode/launch.h"
#include "kernels/attention/parallax/dispatch.h"

namespace lh::kernels {

namespace {

using checks::require;
using checks::require_rows;

template <class P>
void require_parallax(const P& p, const std::string& op) {
  checks::require_shape(p, op, kParallaxMaxDim);
  require(p.bias == nullptr, op, "no bias is supported, got one");
}

/// What training and decoding name alike.
template <class P>
void require_forward(const P& p, const std::string& op) {
  require_parallax(p, op);
  require(p.partial == nullptr, op, "no partial result is supported, got a place for one");
  require_rows(p.q, p.q_stride, op, "q");
  require_rows(p.r, p.r_stride, op, "r");
  require_rows(p.k, p.k_stride, op, "k");
  require_rows(p.v, p.v_stride, op, "v");
  require_rows(p.out, p.out_stride, op, "out");
  require_rows(p.intercept, p.intercept_stride, op, "intercept");
}

}  // namespace

template <class T>
void parallax_fwd(const ParallaxFwdParams<T>& p, xpu::Stream stream) {
  const std::string op = "parallax_fwd";
  require_forward(p, op);
  if (p.schedule.query_tile_count == 0) return;
  checks::require_tile(p.schedule.query_tile_rows,
                       parallax_tiles<T>(p.head_dim, p.value_dim).fwd, op);
  parallax::launch_fwd(p, stream);
}

template <class T>
void parallax_bwd_prepare(const ParallaxBwdParams<T>& p, xpu::Stream stream) {
  const std::string op = "parallax_bwd_prepare";
  require_parallax(p, op);
  require(p.dlse == nullptr, op, "no gradient of lse is supported, got one");
  require_rows(p.out, p.out_stride, op, "out");
  require_rows(p.intercept, p.intercept_stride, op, "intercept");
  require_rows(p.dout, p.dout_stride, op, "dout");
  parallax::launch_prepare(p, stream);
}

template <class T>
void parallax_bwd(const ParallaxBwdParams<T>& p, xpu::Stream stream) {
  const std::string op = "parallax_bwd";
  require_parallax(p, op);
  require(p.dbias == nullptr, op, "no gradient of a bias is supported, got a place for one");
  require_rows(p.q, p.q_stride, op, "q");
  require_rows(p.r, p.r_stride, op, "r");
  require_rows(p.k, p.k_stride, op, "k");
  require_rows(p.v, p.v_stride, op, "v");
  require_rows(p.dout, p.dout_stride, op, "dout");
  require_rows(p.dq, p.dq_stride, op, "dq");
  require_rows(p.dr, p.dr_stride, op, "dr");
  require_rows(p.dk, p.dk_stride, op, "dk");
  require_rows(p.dv, p.dv_stride, op, "dv");
  const AttentionTiles tiles = parallax_tiles<T>(p.head_dim, p.value_dim);
  if (p.schedule.query_tile_count > 0)
    checks::require_tile(p.schedule.query_tile_rows, tiles.bwd_dq, op);
  if (p.schedule.key_tile_count > 0)
    checks::require_tile(p.schedule.key_tile_rows, tiles.bwd_dkv, op);
  parallax::launch_bwd(p, stream);
}

template <class T>
void parallax_decode(const ParallaxDecodeParams<T>& p, xpu::Stream stream) {
  const std::string op = "parallax_decode";
  require_forward(p, op);
  decode::require_batch(p, op);
  if (p.sequences > 0) parallax::launch_decode(p, stream);
}

template <>
AttentionTiles parallax_tiles<float>(int, int) {
  return {32, 32, 32};
}

template <>
AttentionTiles parallax_tiles<xpu::bf16>(int, int) {
  return {64, 64, 64};
}

template void parallax_fwd(const ParallaxFwdParams<float>&, xpu::Stream);
template void parallax_fwd(const ParallaxFwdParams<xpu::bf16>&, xpu::Stream);
template void parallax_bwd_prepare(const ParallaxBwdParams<float>&, xpu::Stream);
template void parallax_bwd_prepare(const ParallaxBwdParams<xpu::bf16>&, xpu::Stream);
template void parallax_bwd(const ParallaxBwdParams<float>&, xpu::Stream);
template void parallax_bwd(const ParallaxBwdParams<xpu::bf16>&, xpu::Stream);
template void parallax_decode(const ParallaxDecodeParams<float>&, xpu::Stream);
template void parallax_decode(const ParallaxDecodeParams<xpu::bf16>&, xpu::Stream);

}  // namespace lh::kernels
