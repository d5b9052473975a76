// cuDNN as a second implementation of backend/attention.h: a peer for benchmarks and a check of the
// kernels here. Asked for with LH_ATTENTION=cudnn; the plans it can't express stay with the kernels.
#pragma once

#include <initializer_list>
#include <string>

#include "backend/attention.h"

namespace lh::cuda {

/// "" when cuDNN can be used; else why not (not built in, not installed, too old).
const std::string& cudnn_attention_unavailable();

/// Whether attention_forward and attention_backward use cuDNN where it takes the case. At first what
/// the environment variable LH_ATTENTION says: own (the default) or cudnn; anything else, or cudnn
/// where it can't be used, is a ConfigError.
bool cudnn_attention_chosen();
void choose_cudnn_attention(bool chosen);

/// bf16 documents of one length that fill q, k and v, any window, no sinks, head dimensions that are
/// multiples of 8 up to 128, all tensors aligned to 16 bytes, on compute capability 8.0 and newer.
bool cudnn_attention_takes(const AttentionPlan& plan, std::initializer_list<const Tensor*> tensors);

/// As in backend/attention.h, for what cudnn_attention_takes. The backward adds dq in an order that
/// changes from run to run.
void cudnn_attention_forward(const Tensor& q, const Tensor& k, const Tensor& v,
                             const AttentionPlan& plan, Tensor& out, Tensor& lse);
void cudnn_attention_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                              const Tensor& lse, const Tensor& d_out, const AttentionPlan& plan,
                              Tensor& dq, Tensor& dk, Tensor& dv);

}  // namespace lh::cuda
