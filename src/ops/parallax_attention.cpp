#include "ops/parallax_attention.h"

#include "backend/operands.h"
#include "ops/attention_definition.h"

namespace lh {
namespace {

constexpr const char* kOp = "parallax_attention";

void check_rank_of_all(const ParallaxInputs& in) {
  for (const auto& [t, name] :
       {std::pair{&in.q, "q"}, {&in.r, "r"}, {&in.k, "k"}, {&in.v, "v"}})
    check_rank(*t, 3, kOp, name);
}

}  // namespace

ParallaxAttention parallax_attention(const Variable& q, const Variable& r, const Variable& k,
                                     const Variable& v,
                                     std::shared_ptr<const AttentionPlan> plan) {
  const ParallaxInputs inputs{q.value(), r.value(), k.value(), v.value()};
  check_rank_of_all(inputs);
  if (definitions_chosen() && !q.device().is_meta()) return parallax_definition(q, r, k, v, *plan);
  const Shape out{q.size(0), q.size(1), v.size(2)}, rows{q.size(0), q.size(1)};
  const DType sums = sum_dtype(q.dtype());
  const Device device = q.device();
  ParallaxResult result{
      Tensor::empty(out, q.dtype(), device), Tensor::empty(out, q.dtype(), device),
      Tensor::empty(rows, sums, device), Tensor::empty(rows, sums, device)};
  LH_DISPATCH_SCRATCH(device, kOp, parallax_forward(inputs, *plan, result));
  const Variable output = record(
      kOp, {q, r, k, v}, result.out,
      [q = Saved(q), r = Saved(r), k = Saved(k), v = Saved(v), result,
       plan = std::move(plan)](Gradients& gradients) {
        const ParallaxInputs in{q.get(), r.get(), k.get(), v.get()};
        ParallaxGradients d{Tensor::empty_like(in.q), Tensor::empty_like(in.r),
                            Tensor::empty_like(in.k), Tensor::empty_like(in.v)};
        LH_DISPATCH_SCRATCH(in.q.device(), kOp,
                            parallax_backward(in, result, gradients.output(), *plan, d));
        gradients.add(0, d.dq);
        gradients.add(1, d.dr);
        gradients.add(2, d.dk);
        gradients.add(3, d.dv);
      });
  return {output, std::move(result)};
}

}  // namespace lh
