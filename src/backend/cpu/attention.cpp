#include "backend/attention.h"

#include <algorithm>

#include "backend/attention_operands.h"
#include "backend/cpu/attention_internal.h"
#include "backend/cpu/attention_rows.h"
#include "backend/elementwise.h"
#include "backend/cpu/simd/attention_bf16.h"
#include "backend/cpu/simd/attention_tiles.h"

namespace lh::cpu {
namespace {

constexpr const char* kOp = "attention";

template <typename Real>
AttentionCall<Real> make_call(const Tensor& q, const Tensor& k, const Tensor& v,
                              const AttentionPlan& plan, const Tensor& out, const Tensor& lse,
                              const Tensor& bias) {
  check_attention(q, k, v, plan, out, lse, kOp);
  if (bias.defined()) check_attention_bias(bias, k, kOp, "bias");
  AttentionCall<Real> call{plan, tile_ops<Real>(q.dtype()), q.device()};
  call.q = HeadRows(q);
  call.k = HeadRows(k);
  call.v = HeadRows(v);
  call.out = HeadRows(out);
  call.lse = lse.data<Real>();
  call.biased = bias.defined();
  if (call.biased) call.bias = bias.data<Real>();
  call.heads = q.size(1);
  call.kv_heads = k.size(1);
  call.group = call.heads / call.kv_heads;
  call.depth = static_cast<int>(round_up(call.q.d, call.ops.depth_multiple));
  call.v_depth = static_cast<int>(round_up(call.v.d, call.ops.depth_multiple));
  return call;
}

template <typename Real>
void forward(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionPlan& plan,
             Tensor& out, Tensor& lse, const Tensor& bias) {
  const AttentionCall<Real> call = make_call<Real>(q, k, v, plan, out, lse, bias);
  const std::vector<RowInterval> ranges = query_intervals(plan);
  zero_rows_outside(ranges, out);
  if (!call.device.is_meta())
    for_rows_outside(ranges, q.size(0), [&](int64_t row) {
      std::fill_n(call.lse + row * call.heads, call.heads, -std::numeric_limits<Real>::infinity());
    });
  std::vector<int> tiled, decoding;
  for (size_t s = 0; s < plan.segments.size(); ++s) {
    const bool few = is_decoding(plan.segments[s], call.group, q.dtype());
    (few ? decoding : tiled).push_back(static_cast<int>(s));
  }
  forward_tiles(call, tiled);
  if (call.device.is_meta()) return;  // decoding's scratch is a few rows
  if constexpr (std::is_same_v<Real, float>) forward_decode(call, decoding, q.dtype());
}

/// One round: rows of dk and dv that it does not reach become 0; dq is written where it has queries.
template <typename Real>
void backward_round(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                    const Tensor& lse, const Tensor& d_out, const AttentionPlan& plan, Tensor& dq,
                    Tensor& dk, Tensor& dv, const Tensor& bias, Tensor* dbias) {
  AttentionCall<Real> call = make_call<Real>(q, k, v, plan, out, lse, bias);
  call.d_out = HeadRows(d_out);
  call.dq = HeadRows(dq);
  call.dk = HeadRows(dk);
  call.dv = HeadRows(dv);
  zero_rows_outside(key_intervals(plan), dk);
  zero_rows_outside(key_intervals(plan), dv);
  if (dbias != nullptr) {
    call.dbias = dbias->data<Real>();
    if (!call.device.is_meta())
      for_rows_outside(key_intervals(plan), k.size(0), [&](int64_t row) {
        std::fill_n(call.dbias + row * call.kv_heads, call.kv_heads, Real(0));
      });
  }
  backward_tiles(call);
}

template <typename Real>
void backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
              const Tensor& lse, const Tensor& d_out, const AttentionPlan& plan, Tensor& dq,
              Tensor& dk, Tensor& dv, const Tensor& bias, Tensor* dbias) {
  check_attention(q, k, v, plan, out, lse, kOp);
  check_attention(dq, dk, dv, plan, d_out, lse, kOp);
  check_shape(d_out, out.shape(), kOp, "d_out");
  check_shape(dq, q.shape(), kOp, "dq");
  check_shape(dk, k.shape(), kOp, "dk");
  check_shape(dv, v.shape(), kOp, "dv");
  if (dbias != nullptr) check_attention_bias(*dbias, k, kOp, "dbias");
  const std::vector<AttentionPlan> rounds = disjoint_rounds(plan);
  zero_rows_outside(query_intervals(rounds), dq);
  if (rounds.size() <= 1) {
    const AttentionPlan& all = rounds.empty() ? plan : rounds[0];
    return backward_round<Real>(q, k, v, out, lse, d_out, all, dq, dk, dv, bias, dbias);
  }
  const bool computes = !q.device().is_meta();
  if (dbias != nullptr && computes) fill(*dbias, 0);
  sum_over_rounds(rounds, dk, dv,
                  [&](const AttentionPlan& round, Tensor& dk_part, Tensor& dv_part) {
                    Tensor dbias_part;
                    if (dbias != nullptr) dbias_part = Tensor::empty_like(*dbias);
                    backward_round<Real>(q, k, v, out, lse, d_out, round, dq, dk_part, dv_part,
                                         bias, dbias != nullptr ? &dbias_part : nullptr);
                    if (dbias != nullptr && computes) add_scaled(*dbias, 1, dbias_part, 1, *dbias);
                  });
}

}  // namespace

template <>
const TileOps<float>& tile_ops<float>(DType dtype) {
  if (dtype == DType::kF32) return LH_SIMD_CALL(tile_ops_f32());
#if defined(__x86_64__)
  if (cpu_info().amx_bf16) return tile_ops_amx();
  if (cpu_info().avx512_bf16) return tile_ops_avx512_bf16();
#endif
  return LH_SIMD_CALL(tile_ops_bf16());
}
template <>
const TileOps<double>& tile_ops<double>(DType) {
  return LH_SIMD_CALL(tile_ops_f64());
}

void refresh_plan(const AttentionPlan&) {}  // nothing is kept

void attention_forward(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionPlan& plan,
                       Tensor& out, Tensor& lse, const Tensor& bias) {
  dispatch_float(q.dtype(), kOp,
                 [&]<typename T>() { forward<accumulate_t<T>>(q, k, v, plan, out, lse, bias); });
}

void attention_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                        const Tensor& lse, const Tensor& d_out, const AttentionPlan& plan,
                        Tensor& dq, Tensor& dk, Tensor& dv, const Tensor& bias, Tensor* dbias) {
  dispatch_float(q.dtype(), kOp, [&]<typename T>() {
    backward<accumulate_t<T>>(q, k, v, out, lse, d_out, plan, dq, dk, dv, bias, dbias);
  });
}

}  // namespace lh::cpu
