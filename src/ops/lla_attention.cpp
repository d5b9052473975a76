#include "ops/lla_attention.h"

#include "backend/operands.h"

namespace lh {
namespace {

constexpr const char* kOp = "lla_attention";

}  // namespace

Variable lla_attention(const Variable& q, const Variable& k, const Variable& v,
                       std::shared_ptr<const AttentionPlan> plan, const LlaOptions& options) {
  for (const auto& [x, name] : {std::pair{&q, "q"}, {&k, "k"}, {&v, "v"}})
    check_rank(x->value(), 3, kOp, name);
  Tensor out = Tensor::empty({q.size(0), q.size(1), v.size(2)}, q.dtype(), q.device());
  LH_DISPATCH_SCRATCH(q.device(), kOp,
                      lla_forward(q.value(), k.value(), v.value(), *plan, options, out));
  return record(kOp, {q, k, v}, out,
                [q = Saved(q), k = Saved(k), v = Saved(v), plan = std::move(plan),
                 options](Gradients& gradients) {
                  const Tensor tq = q.get(), tk = k.get(), tv = v.get();
                  LlaGradients d{Tensor::empty_like(tq), Tensor::empty_like(tk),
                                 Tensor::empty_like(tv)};
                  const Tensor d_out = gradients.output();
                  LH_DISPATCH_SCRATCH(tq.device(), kOp,
                                      lla_backward(tq, tk, tv, d_out, *plan, options, d));
                  gradients.add(0, d.dq);
                  gradients.add(1, d.dk);
                  gradients.add(2, d.dv);
                });
}

}  // namespace lh
