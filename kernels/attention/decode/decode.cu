// Launcher of attention_decode: refuses what the kernels cannot do, then hands over to the file of the
// type. Formula and plan: split.cuh, fwd_bf16.cu, fwd_fp32.cu.
// Roofline: no kernel of its own.
#include "kernels/attention/checks.h"
#include "kernels/attention/decode/launch.h"

namespace lh::kernels {

template <class T>
void attention_decode(const AttentionDecodeParams<T>& p, xpu::Stream stream) {
  using checks::require_rows;
  const std::string op = "attention_decode";
  checks::require_shape(p, op);
  require_rows(p.q, p.q_stride, op, "q");
  require_rows(p.k, p.k_stride, op, "k");
  require_rows(p.v, p.v_stride, op, "v");
  if (p.partial) {
    require_rows(p.partial, p.out_stride, op, "partial");
  } else {
    require_rows(p.out, p.out_stride, op, "out");
  }
  decode::require_batch(p, op);
  if (p.sequences > 0) decode::launch(p, stream);
}

template void attention_decode(const AttentionDecodeParams<float>&, xpu::Stream);
template void attention_decode(const AttentionDecodeParams<xpu::bf16>&, xpu::Stream);

}  // namespace lh::kernels
