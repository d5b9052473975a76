#include "bench/attention_variants.h"

#include <cmath>
#include <limits>

#include "base/philox.h"
#include "bench/measure.h"

namespace lh::bench {
namespace {

/// The plan with a gate per key outside the window, and the gates: gate(u) of a u uniform in [0, 1).
struct Gated {
  AttentionPlan plan;
  Tensor bias;  // [rows, kv_heads] f32
};

template <typename Gate>
Gated gated(const AttentionOperands& o, const AttentionPlan& plan, Gate&& gate) {
  Gated result{plan, Tensor::empty({o.in.k.size(0), o.in.k.size(1)}, DType::kF32)};
  result.plan.mask.bias_window = kGateWindow;
  result.plan.backend_state = nullptr;
  Philox random(6);
  for (float& b : result.bias.span<float>()) b = gate(random.uniform());
  result.bias = result.bias.to(o.device());
  return result;
}

}  // namespace

AttentionOperands::AttentionOperands(const AttentionShape& s, DType dtype, Device device)
    : in{random_tensor({s.rows, s.heads, s.head_dim}, dtype, device, 1),
         random_tensor({s.rows, s.heads, s.head_dim}, dtype, device, 2),
         random_tensor({s.rows, s.kv_heads, s.head_dim}, dtype, device, 3),
         random_tensor({s.rows, s.kv_heads, s.head_dim}, dtype, device, 4)},
      d_out(random_tensor(in.q.shape(), dtype, device, 5)),
      result{Tensor::empty_like(in.q), Tensor::empty_like(in.q),
             Tensor::empty({s.rows, s.heads}, DType::kF32, device),
             Tensor::empty({s.rows, s.heads}, DType::kF32, device)},
      d_in{Tensor::empty_like(in.q), Tensor::empty_like(in.r), Tensor::empty_like(in.k),
           Tensor::empty_like(in.v)} {}

void AttentionOperands::forward(const AttentionPlan& plan, const Tensor& bias) {
  LH_DISPATCH(device(), "bench",
              attention_forward(in.q, in.k, in.v, plan, result.out, result.lse, bias));
}

void AttentionOperands::backward(const AttentionPlan& plan, const Tensor& bias, Tensor* d_bias) {
  LH_DISPATCH(device(), "bench",
              attention_backward(in.q, in.k, in.v, result.out, result.lse, d_out, plan, d_in.dq,
                                 d_in.dk, d_in.dv, bias, d_bias));
}

AttentionPlan causal_plan(std::span<const int64_t> lengths, int64_t head_dim) {
  AttentionPlan plan;
  plan.scale = 1 / std::sqrt(static_cast<double>(head_dim));
  int64_t begin = 0;
  for (const int64_t length : lengths) {
    plan.segments.push_back({begin, length, begin, length, 0});
    begin += length;
  }
  return plan;
}

AttentionWay softmax_way(AttentionOperands& o, const AttentionPlan& plan) {
  return {[&o, plan] { o.forward(plan); }, [&o, plan] { o.backward(plan); }};
}

AttentionWay parallax_way(AttentionOperands& o, const AttentionPlan& plan) {
  return {[&o, plan] { LH_DISPATCH(o.device(), "bench", parallax_forward(o.in, plan, o.result)); },
          [&o, plan] {
            LH_DISPATCH(o.device(), "bench",
                        parallax_backward(o.in, o.result, o.d_out, plan, o.d_in));
          }};
}

AttentionWay soft_way(AttentionOperands& o, const AttentionPlan& plan) {
  const Gated gates = gated(o, plan, [](double u) { return static_cast<float>(std::log(u + 1e-8)); });
  return {[&o, gates] { o.forward(gates.plan, gates.bias); },
          [&o, gates, d_bias = Tensor::empty_like(gates.bias)]() mutable {
            o.backward(gates.plan, gates.bias, &d_bias);
          }};
}

AttentionWay hard_way(AttentionOperands& o, const AttentionPlan& plan) {
  Gated gates = gated(o, plan, [](double u) {
    return u < kGateDensity ? 0.0f : -std::numeric_limits<float>::infinity();
  });
  gates.plan.mask.bias_closes = true;
  return {[&o, gates] { o.forward(gates.plan, gates.bias); },
          [&o, gates] { o.backward(gates.plan, gates.bias); }};
}

}  // namespace lh::bench
