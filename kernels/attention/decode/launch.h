// The launches that the files of attention_decode provide, one per type.
#pragma once
#include "kernels/attention/decode.h"
#include "kernels/xpu/xpu.h"

namespace lh::kernels::decode {

void launch(const AttentionDecodeParams<float>& p, xpu::Stream stream);
void launch(const AttentionDecodeParams<xpu::bf16>& p, xpu::Stream stream);

template <class Params>
unsigned blocks(const Params& p) {
  return static_cast<unsigned>(p.sequences) * static_cast<unsigned>(p.splits) *
         static_cast<unsigned>(p.kv_heads) *
         static_cast<unsigned>(attention_decode_row_tiles(p));
}

}  // namespace lh::kernels::decode
