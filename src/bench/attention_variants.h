// Softmax attention of training and its variants over the same operands, each as a pair of calls.
#pragma once

#include <functional>
#include <span>

#include "backend/parallax.h"

namespace lh::bench {

/// Keys that are nearer than this see no gate, as in the SP-KV paper.
inline constexpr int64_t kGateWindow = 128;
/// Share of the keys outside that window that hard gates leave open.
inline constexpr double kGateDensity = 0.1;

struct AttentionShape {
  int64_t rows, heads, kv_heads, head_dim;
};

/// Inputs and results of every variant, shared by all plans over them: a backward may see the output of
/// another's forward, which changes values, not work.
struct AttentionOperands {
  ParallaxInputs in;
  Tensor d_out;
  ParallaxResult result;
  ParallaxGradients d_in;

  AttentionOperands(const AttentionShape& shape, DType dtype, Device device);

  Device device() const { return in.q.device(); }
  void forward(const AttentionPlan& plan, const Tensor& bias = {});
  void backward(const AttentionPlan& plan, const Tensor& bias = {}, Tensor* d_bias = nullptr);
};

/// Causal attention within documents of these lengths.
AttentionPlan causal_plan(std::span<const int64_t> lengths, int64_t head_dim);

/// The two passes of a variant. They refer to the operands; backward needs a forward before it.
struct AttentionWay {
  std::function<void()> forward, backward;
  void both() const {
    forward();
    backward();
  }
};
AttentionWay softmax_way(AttentionOperands& operands, const AttentionPlan& plan);
AttentionWay parallax_way(AttentionOperands& operands, const AttentionPlan& plan);
/// SP-KV with gates in (0, 1): a bias per key outside the window, and its gradient.
AttentionWay soft_way(AttentionOperands& operands, const AttentionPlan& plan);
/// SP-KV with hard gates: kGateDensity of the keys outside the window, drawn anywhere, are open.
AttentionWay hard_way(AttentionOperands& operands, const AttentionPlan& plan);

}  // namespace lh::bench
