// Softmax attention as graphs of cuDNN: the shapes and the graphs, without a device.
#pragma once

#include "backend/cuda/cudnn_graph.h"

namespace lh::cuda::cudnn {

/// `batch` documents of `length` tokens, bf16. Strides are in elements, between tokens; within a
/// token heads and channels are dense.
struct AttentionShape {
  int64_t batch = 0, length = 0, heads = 0, kv_heads = 0, head_dim = 0, value_dim = 0;
  int64_t window = 0;  // 0: unlimited
  int64_t q_stride = 0, k_stride = 0, v_stride = 0, out_stride = 0, d_out_stride = 0;
  int64_t dq_stride = 0, dk_stride = 0, dv_stride = 0;
  float scale = 1;

  auto operator<=>(const AttentionShape&) const = default;
};

/// Numbers of the tensors with an address.
struct AttentionForward {
  Plan plan;
  int q = 0, k = 0, v = 0, out = 0, lse = 0;
};
AttentionForward attention_forward(const AttentionShape& shape, Descriptor device);

struct AttentionBackward {
  Plan plan;
  int q = 0, k = 0, v = 0, out = 0, lse = 0, d_out = 0, dq = 0, dk = 0, dv = 0;
  // f32 scratch: sums of d_out * out [batch, heads, length] and dq before rounding [.., head_dim].
  int row_sums = 0, dq_sum = 0;
};
AttentionBackward attention_backward(const AttentionShape& shape, Descriptor device);

}  // namespace lh::cuda::cudnn
