// What the launchers of decoding share, and the launches that the files of attention_decode provide.
#pragma once
#include "kernels/attention/checks.h"
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

/// Refuses counts, pages and splits that no decoding kernel takes.
template <class Params>
void require_batch(const Params& p, const std::string& op) {
  using checks::require;
  require(p.sequences >= 0 && p.tokens >= 1 && p.splits >= 1 && p.split_keys >= 0, op,
          "sequences and split_keys of at least 0, tokens and splits of at least 1, got " +
              std::to_string(p.sequences) + ", " + std::to_string(p.split_keys) + ", " +
              std::to_string(p.tokens) + " and " + std::to_string(p.splits));
  if (p.pages) {
    require(p.page_size >= 16 && (p.page_size & (p.page_size - 1)) == 0, op,
            "the page size is a power of two of at least 16, got " + std::to_string(p.page_size));
  }
  require(p.sequences == 0 || p.segments || (p.lengths && p.tokens == 1), op,
          "segments, or lengths and one token per sequence, got neither");
  require(p.splits == 1 || (p.workspace && p.counters), op,
          "more than one split needs workspace and counters, got none");
}

}  // namespace lh::kernels::decode
