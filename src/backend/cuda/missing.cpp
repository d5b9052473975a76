// Operations the CUDA backend does not have yet. A test lets this list only shrink
// (tests/backend/cuda_missing.sh).
#include "base/error.h"
#include "kernels/attention/params.h"

namespace lh::kernels {

template <class T>
void attention_bwd(const AttentionBwdParams<T>&, xpu::Stream) {
  fail("[attention_backward] has no CUDA implementation yet in bf16: use precision.compute: fp32");
}
template void attention_bwd(const AttentionBwdParams<xpu::bf16>&, xpu::Stream);

}  // namespace lh::kernels
