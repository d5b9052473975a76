#include "backend/parallax.h"

#include <algorithm>

#include "backend/cpu/attention_rows.h"
#include "backend/cpu/parallax_internal.h"
#include "backend/parallax_operands.h"

namespace lh::cpu {
namespace {

constexpr const char* kOp = "parallax";

template <typename Real>
ParallaxCall<Real> make_call(const ParallaxInputs& in, const AttentionPlan& plan,
                             const ParallaxResult& result) {
  ParallaxCall<Real> call{{plan, tile_ops<Real>(in.q.dtype()), in.q.device()}};
  call.q = HeadRows(in.q);
  call.r = HeadRows(in.r);
  call.k = HeadRows(in.k);
  call.v = HeadRows(in.v);
  call.out = HeadRows(result.out);
  call.intercept = HeadRows(result.intercept);
  call.lse = result.lse.template data<Real>();
  call.probe_mean = result.probe_mean.template data<Real>();
  call.heads = in.q.size(1);
  call.kv_heads = in.k.size(1);
  call.group = call.heads / call.kv_heads;
  call.depth = static_cast<int>(round_up(call.q.d, call.ops.depth_multiple));
  call.v_depth = static_cast<int>(round_up(call.v.d, call.ops.depth_multiple));
  return call;
}

template <typename Real>
void forward(const ParallaxInputs& in, const AttentionPlan& plan, ParallaxResult& result) {
  const ParallaxCall<Real> call = make_call<Real>(in, plan, result);
  const std::vector<RowInterval> ranges = query_intervals(plan);
  zero_rows_outside(ranges, result.out);
  zero_rows_outside(ranges, result.intercept);
  if (!call.device.is_meta())
    for_rows_outside(ranges, in.q.size(0), [&](int64_t row) {
      std::fill_n(call.lse + row * call.heads, call.heads, -std::numeric_limits<Real>::infinity());
      std::fill_n(call.probe_mean + row * call.heads, call.heads, Real(0));
    });
  std::vector<int> tiled, decoding;
  for (size_t s = 0; s < plan.segments.size(); ++s) {
    const bool few = is_decoding(plan.segments[s], call.group, in.q.dtype());
    (few ? decoding : tiled).push_back(static_cast<int>(s));
  }
  parallax_forward_tiles(call, tiled);
  if (call.device.is_meta()) return;  // decoding's scratch is a few rows
  if constexpr (std::is_same_v<Real, float>)
    parallax_forward_decode(call, decoding, in.q.dtype());
}

template <typename Real>
void backward(const ParallaxInputs& in, const ParallaxResult& result, const Tensor& d_out,
              const AttentionPlan& plan, ParallaxGradients& gradients) {
  const auto run_round = [&](const AttentionPlan& round, Tensor& dk, Tensor& dv) {
    ParallaxCall<Real> call = make_call<Real>(in, round, result);
    call.d_out = HeadRows(d_out);
    call.dq = HeadRows(gradients.dq);
    call.dr = HeadRows(gradients.dr);
    call.dk = HeadRows(dk);
    call.dv = HeadRows(dv);
    zero_rows_outside(key_intervals(round), dk);
    zero_rows_outside(key_intervals(round), dv);
    parallax_backward_tiles(call);
  };
  const std::vector<AttentionPlan> rounds = disjoint_rounds(plan);
  zero_rows_outside(query_intervals(rounds), gradients.dq);
  zero_rows_outside(query_intervals(rounds), gradients.dr);
  if (rounds.size() > 1) return sum_over_rounds(rounds, gradients.dk, gradients.dv, run_round);
  run_round(rounds.empty() ? plan : rounds[0], gradients.dk, gradients.dv);
}

}  // namespace

void parallax_forward(const ParallaxInputs& inputs, const AttentionPlan& plan,
                      ParallaxResult& result) {
  check_parallax(inputs, plan, result, kOp);
  dispatch_float(inputs.q.dtype(), kOp,
                 [&]<typename T>() { forward<accumulate_t<T>>(inputs, plan, result); });
}

void parallax_backward(const ParallaxInputs& inputs, const ParallaxResult& result,
                       const Tensor& d_out, const AttentionPlan& plan,
                       ParallaxGradients& gradients) {
  check_parallax_gradients(inputs, result, d_out, plan, gradients, kOp);
  dispatch_float(inputs.q.dtype(), kOp, [&]<typename T>() {
    backward<accumulate_t<T>>(inputs, result, d_out, plan, gradients);
  });
}

}  // namespace lh::cpu
