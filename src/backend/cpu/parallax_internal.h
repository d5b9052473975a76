// What the forward and backward loop nests of Parallax share.
#pragma once

#include "backend/cpu/attention_internal.h"

namespace lh::cpu {

/// Softmax attention's operands and those of the second channel. probe_mean is [nq, heads] of Real.
template <typename Real>
struct ParallaxCall : AttentionCall<Real> {
  HeadRows r{}, intercept{}, dr{};
  Real* probe_mean = nullptr;
};

template <typename Real>
void parallax_forward_tiles(const ParallaxCall<Real>& call, const std::vector<int>& segments);
/// For segments of few query rows (is_decoding).
void parallax_forward_decode(const ParallaxCall<float>& call, const std::vector<int>& segments,
                             DType dtype);
template <typename Real>
void parallax_backward_tiles(const ParallaxCall<Real>& call);

}  // namespace lh::cpu
