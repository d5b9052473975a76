// Launchers of the portable attention: refuse what the kernels cannot do, then hand over to the
// file of the type. Formulas and plans: fwd_bf16.cu, bwd_bf16.cu, README.md.
// Roofline: no kernel of its own.
#include "kernels/attention/attention.h"

#include "kernels/attention/checks.h"
#include "kernels/attention/softmax/dispatch.h"

namespace lh::kernels {

namespace {

using checks::require_closed_runs;
using checks::require_open_keys;
using checks::require_rows;
using checks::require_shape;
using checks::require_tile;

}  // namespace

template <class T>
void attention_fwd(const AttentionFwdParams<T>& p, xpu::Stream stream) {
  const std::string op = "attention_fwd";
  require_shape(p, op);
  require_rows(p.q, p.q_stride, op, "q");
  require_rows(p.k, p.k_stride, op, "k");
  require_rows(p.v, p.v_stride, op, "v");
  if (p.partial) {
    require_rows(p.partial, p.out_stride, op, "partial");
  } else {
    require_rows(p.out, p.out_stride, op, "out");
  }
  require_open_keys(p, op);
  if (p.schedule.query_tile_count == 0) return;
  require_tile(p.schedule.query_tile_rows, attention_tiles<T>(p.head_dim, p.value_dim).fwd, op);
  softmax::launch_fwd(p, stream);
}

template <class T>
void attention_bwd_prepare(const AttentionBwdParams<T>& p, xpu::Stream stream) {
  const std::string op = "attention_bwd_prepare";
  require_shape(p, op);
  require_rows(p.out, p.out_stride, op, "out");
  require_rows(p.dout, p.dout_stride, op, "dout");
  softmax::launch_prepare(p, stream);
}

template <class T>
void attention_bwd(const AttentionBwdParams<T>& p, xpu::Stream stream) {
  const std::string op = "attention_bwd";
  require_shape(p, op);
  require_rows(p.q, p.q_stride, op, "q");
  require_rows(p.k, p.k_stride, op, "k");
  require_rows(p.v, p.v_stride, op, "v");
  require_rows(p.dout, p.dout_stride, op, "dout");
  require_rows(p.dq, p.dq_stride, op, "dq");
  require_rows(p.dk, p.dk_stride, op, "dk");
  require_rows(p.dv, p.dv_stride, op, "dv");
  require_open_keys(p, op);
  require_closed_runs(p, op);
  const AttentionTiles tiles = attention_tiles<T>(p.head_dim, p.value_dim);
  if (p.schedule.query_tile_count > 0) require_tile(p.schedule.query_tile_rows, tiles.bwd_dq, op);
  if (p.schedule.key_tile_count > 0) require_tile(p.schedule.key_tile_rows, tiles.bwd_dkv, op);
  softmax::launch_bwd(p, stream);
}

template <>
AttentionTiles attention_tiles<float>(int, int) {
  return {32, 32, 32};
}

template <>
AttentionTiles attention_tiles<xpu::bf16>(int head_dim, int value_dim) {
  return {softmax::fwd_tile_bf16(head_dim, value_dim), 64, 64};
}

template void attention_fwd(const AttentionFwdParams<float>&, xpu::Stream);
template void attention_fwd(const AttentionFwdParams<xpu::bf16>&, xpu::Stream);
template void attention_bwd_prepare(const AttentionBwdParams<float>&, xpu::Stream);
template void attention_bwd_prepare(const AttentionBwdParams<xpu::bf16>&, xpu::Stream);
template void attention_bwd(const AttentionBwdParams<float>&, xpu::Stream);
template void attention_bwd(const AttentionBwdParams<xpu::bf16>&, xpu::Stream);

}  // namespace lh::kernels
