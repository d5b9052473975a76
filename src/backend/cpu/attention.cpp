#include "backend/attention.h"

#include <algorithm>

#include "backend/attention_operands.h"
#include "backend/cpu/attention_internal.h"
#include "backend/elementwise.h"
#include "backend/cpu/simd/attention_bf16.h"
#include "backend/cpu/simd/attention_tiles.h"

namespace lh::cpu {
namespace {

constexpr const char* kOp = "attention";

/// The plan's segments in rounds whose segments share no key, in their order.
std::vector<AttentionPlan> disjoint_rounds(const AttentionPlan& plan) {
  std::vector<AttentionPlan> rounds;
  for (const AttentionSegment& segment : plan.segments) {
    if (segment.key_length == 0) continue;
    const auto apart = [&](const AttentionSegment& other) {
      return segment.key_begin + segment.key_length <= other.key_begin ||
             other.key_begin + other.key_length <= segment.key_begin;
    };
    const auto fits = [&](const AttentionPlan& round) {
      return std::all_of(round.segments.begin(), round.segments.end(), apart);
    };
    auto round = std::find_if(rounds.begin(), rounds.end(), fits);
    if (round == rounds.end()) round = rounds.insert(round, {{}, plan.mask, plan.scale});
    round->segments.push_back(segment);
  }
  return rounds;
}

/// Calls fill(row) for each row outside the ranges.
template <typename F>
void for_rows_outside(const std::vector<RowInterval>& ranges, int64_t rows, F&& fill) {
  int64_t row = 0;
  for (const RowInterval& range : ranges) {
    for (; row < range.begin; ++row) fill(row);
    row = range.end;
  }
  for (; row < rows; ++row) fill(row);
}

void zero_rows_outside(const std::vector<RowInterval>& ranges, Tensor& t) {
  const HeadRows rows(t);
  const auto bytes = static_cast<size_t>(t.size(1) * rows.d * rows.element_bytes);
  for_rows_outside(ranges, t.size(0), [&](int64_t row) { std::fill_n(rows.at(row, 0), bytes, 0); });
}

template <typename Real>
AttentionCall<Real> make_call(const Tensor& q, const Tensor& k, const Tensor& v,
                              const AttentionPlan& plan, const Tensor& out, const Tensor& lse) {
  check_attention(q, k, v, plan, out, lse, kOp);
  AttentionCall<Real> call{plan, tile_ops<Real>(q.dtype())};
  call.q = HeadRows(q);
  call.k = HeadRows(k);
  call.v = HeadRows(v);
  call.out = HeadRows(out);
  call.lse = lse.data<Real>();
  call.heads = q.size(1);
  call.kv_heads = k.size(1);
  call.group = call.heads / call.kv_heads;
  call.depth = static_cast<int>(round_up(call.q.d, call.ops.depth_multiple));
  call.v_depth = static_cast<int>(round_up(call.v.d, call.ops.depth_multiple));
  return call;
}

template <typename Real>
void forward(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionPlan& plan,
             Tensor& out, Tensor& lse) {
  const AttentionCall<Real> call = make_call<Real>(q, k, v, plan, out, lse);
  const std::vector<RowInterval> ranges = query_intervals(plan);
  zero_rows_outside(ranges, out);
  for_rows_outside(ranges, q.size(0), [&](int64_t row) {
    std::fill_n(call.lse + row * call.heads, call.heads, -std::numeric_limits<Real>::infinity());
  });
  std::vector<int> tiled, decoding;
  for (size_t s = 0; s < plan.segments.size(); ++s) {
    const bool few = is_decoding(plan.segments[s], call.group, q.dtype());
    (few ? decoding : tiled).push_back(static_cast<int>(s));
  }
  forward_tiles(call, tiled);
  if constexpr (std::is_same_v<Real, float>) forward_decode(call, decoding, q.dtype());
}

/// One round: rows of dk and dv that it does not reach become 0; dq is written where it has queries.
template <typename Real>
void backward_round(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                    const Tensor& lse, const Tensor& d_out, const AttentionPlan& plan, Tensor& dq,
                    Tensor& dk, Tensor& dv) {
  AttentionCall<Real> call = make_call<Real>(q, k, v, plan, out, lse);
  call.d_out = HeadRows(d_out);
  call.dq = HeadRows(dq);
  call.dk = HeadRows(dk);
  call.dv = HeadRows(dv);
  zero_rows_outside(key_intervals(plan), dk);
  zero_rows_outside(key_intervals(plan), dv);
  backward_tiles(call);
}

template <typename Real>
void backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
              const Tensor& lse, const Tensor& d_out, const AttentionPlan& plan, Tensor& dq,
              Tensor& dk, Tensor& dv) {
  check_attention(q, k, v, plan, out, lse, kOp);
  check_attention(dq, dk, dv, plan, d_out, lse, kOp);
  check_shape(d_out, out.shape(), kOp, "d_out");
  check_shape(dq, q.shape(), kOp, "dq");
  check_shape(dk, k.shape(), kOp, "dk");
  check_shape(dv, v.shape(), kOp, "dv");
  const std::vector<AttentionPlan> rounds = disjoint_rounds(plan);
  AttentionPlan with_keys;
  for (const AttentionPlan& round : rounds)
    with_keys.segments.insert(with_keys.segments.end(), round.segments.begin(), round.segments.end());
  zero_rows_outside(query_intervals(with_keys), dq);
  if (rounds.size() <= 1) {
    const AttentionPlan& all = rounds.empty() ? plan : rounds[0];
    return backward_round<Real>(q, k, v, out, lse, d_out, all, dq, dk, dv);
  }
  // Keys that several segments see (context parallelism): a task writes its keys, so each round has
  // gradients of its own, which are added.
  Tensor dk_sum = Tensor::zeros(dk.shape(), sum_dtype(dk.dtype()));
  Tensor dv_sum = Tensor::zeros(dv.shape(), sum_dtype(dv.dtype()));
  for (const AttentionPlan& round : rounds) {
    Tensor dk_part = Tensor::empty_like(dk), dv_part = Tensor::empty_like(dv);
    backward_round<Real>(q, k, v, out, lse, d_out, round, dq, dk_part, dv_part);
    for (const auto& [part, sum] : {std::pair{&dk_part, &dk_sum}, std::pair{&dv_part, &dv_sum}}) {
      Tensor wide = Tensor::empty_like(*sum);
      copy(*part, wide);
      add_scaled(*sum, 1, wide, 1, *sum);
    }
  }
  copy(dk_sum, dk);
  copy(dv_sum, dv);
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
                       Tensor& out, Tensor& lse) {
  dispatch_float(q.dtype(), kOp,
                 [&]<typename T>() { forward<accumulate_t<T>>(q, k, v, plan, out, lse); });
}

void attention_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                        const Tensor& lse, const Tensor& d_out, const AttentionPlan& plan,
                        Tensor& dq, Tensor& dk, Tensor& dv) {
  dispatch_float(q.dtype(), kOp, [&]<typename T>() {
    backward<accumulate_t<T>>(q, k, v, out, lse, d_out, plan, dq, dk, dv);
  });
}

}  // namespace lh::cpu
