#include "backend/parallax_operands.h"

namespace lh {

void check_parallax(const ParallaxInputs& in, const AttentionPlan& plan,
                    const ParallaxResult& result, std::string_view op) {
  check_rank(in.q, 3, op, "q");
  check_like(in.r, in.q, op, "r");
  // The strides of r too, by putting it in the place of q.
  check_attention(in.r, in.k, in.v, plan, result.intercept, result.probe_mean, op);
  check_attention(in.q, in.k, in.v, plan, result.out, result.lse, op);
}

void check_parallax_gradients(const ParallaxInputs& in, const ParallaxResult& result,
                              const Tensor& d_out, const AttentionPlan& plan,
                              const ParallaxGradients& gradients, std::string_view op) {
  check_parallax(in, plan, result, op);
  const auto& [dq, dr, dk, dv] = gradients;
  check_like(d_out, result.out, op, "d_out");
  check_like(dq, in.q, op, "dq");
  check_like(dr, in.r, op, "dr");
  check_like(dk, in.k, op, "dk");
  check_like(dv, in.v, op, "dv");
  check_attention(dq, dk, dv, plan, d_out, result.lse, op);
  check_attention(dr, dk, dv, plan, d_out, result.lse, op);
}

}  // namespace lh
