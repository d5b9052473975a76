// Utility gates of self-pruned key-value attention: logits to the bias of attention, f32 and bf16.
#pragma once
#include "kernels/xpu/types.h"

namespace lh::kernels {

enum class UtilityGateMode : std::uint8_t { kSoft, kSample, kAnneal, kHard };

/// Contiguous arrays of `size` elements, in rows of `heads`.
template <class T>
struct UtilityGateParams {
  const T* logits = nullptr;
  const std::int64_t* rows = nullptr;  // [size / heads] numbers for draws, below 0: not counted; may
                                       // be null where nothing is drawn: all are counted
  float* bias = nullptr;               // forward, or the utilities of utility_values
  const float* dbias = nullptr;        // backward only
  T* d_logits = nullptr;               // backward only; may alias logits
  UtilityGateMode mode = UtilityGateMode::kHard;
  float alpha = 1.0f;  // kAnneal only
  float threshold = 0.5f;
  float clip = 0.0f;      // utilities stay between this and 1 - this
  bool weighted = false;  // a kept key's gate is its utility, not 1
  float pull = 0.0f;      // backward: what a counted row adds to the derivative by its utilities
  std::uint64_t draw_key = 0;  // kSample only
  std::int64_t heads = 1;
  std::int64_t size = 0;
};

/// The bias of each key, and its gradient (formulas in utility_gate.cu).
template <class T>
void utility_gate_fwd(const UtilityGateParams<T>& p, xpu::Stream stream);
template <class T>
void utility_gate_bwd(const UtilityGateParams<T>& p, xpu::Stream stream);
/// bias = the utilities of counted rows, 0 in others.
template <class T>
void utility_values(const UtilityGateParams<T>& p, xpu::Stream stream);

}  // namespace lh::kernels
