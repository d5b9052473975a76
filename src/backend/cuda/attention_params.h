// Fills what the params structs of kernels/attention name alike.
#pragma once

#include "backend/attention.h"
#include "backend/cuda/attention_schedule.h"
#include "backend/cuda/kernel_call.h"

namespace lh::cuda {

/// Row stride of [rows, heads, d] whose inner two dimensions are contiguous.
inline int64_t row_stride(const Tensor& t, std::string_view op, std::string_view name) {
  return row_view(t, 1, op, name).stride;
}

/// For training and for decoding.
template <typename Params>
void set_sizes(Params& p, const Tensor& q, const Tensor& k, const Tensor& v,
               const AttentionPlan& plan, std::string_view op) {
  p.heads = narrow(q.size(1), op, "heads");
  p.kv_heads = narrow(k.size(1), op, "kv_heads");
  p.head_dim = narrow(q.size(2), op, "head_dim");
  p.value_dim = narrow(v.size(2), op, "value_dim");
  p.scale = static_cast<float>(plan.scale);
  p.mask = mask_of(plan);
}

/// For forward and backward.
template <typename T, typename Params>
void set_operands(Params& p, const Tensor& q, const Tensor& k, const Tensor& v,
                  const AttentionPlan& plan, const Tensor& out, const Tensor& lse,
                  std::string_view op) {
  set_sizes(p, q, k, v, plan, op);
  p.q = pointer<T>(q);
  p.k = pointer<T>(k);
  p.v = pointer<T>(v);
  p.out = pointer<T>(out);
  p.lse = pointer<float>(lse);
  p.q_stride = row_stride(q, op, "q");
  p.k_stride = row_stride(k, op, "k");
  p.v_stride = row_stride(v, op, "v");
  p.out_stride = row_stride(out, op, "out");
}

/// For the training kernels.
template <typename Params>
void set_rows(Params& p, const Tensor& q, const Tensor& k, std::string_view op) {
  p.query_rows = narrow(q.size(0), op, "query rows");
  p.key_rows = narrow(k.size(0), op, "key rows");
}

template <typename T, typename Params>
void set_gradients(Params& p, const Tensor& d_out, const Tensor& dq, const Tensor& dk,
                   const Tensor& dv, std::string_view op) {
  p.dout = pointer<T>(d_out);
  p.dq = pointer<T>(dq);
  p.dk = pointer<T>(dk);
  p.dv = pointer<T>(dv);
  p.dout_stride = row_stride(d_out, op, "d_out");
  p.dq_stride = row_stride(dq, op, "dq");
  p.dk_stride = row_stride(dk, op, "dk");
  p.dv_stride = row_stride(dv, op, "dv");
}

}  // namespace lh::cuda
