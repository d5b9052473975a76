#include "ops/attention.h"

#include "ops/attention_definition.h"

namespace lh {

Variable attention(const Variable& q, const Variable& k, const Variable& v,
                   std::shared_ptr<const AttentionPlan> plan, const Variable& bias) {
  if (q.value().rank() != 3 || k.value().rank() != 3 || v.value().rank() != 3)
    fail<ShapeError>("[attention] expected q, k, v of shape [tokens, heads, d], got {}, {}, {}",
                     q.value().str(), k.value().str(), v.value().str());
  if (q.size(2) != k.size(2) || k.size(1) != v.size(1) || k.size(0) != v.size(0) ||
      k.size(1) == 0 || q.size(1) % k.size(1) != 0)
    fail<ShapeError>("[attention] q {}, k {}, v {}: head_dim, kv heads or rows do not fit",
                     q.value().str(), k.value().str(), v.value().str());
  if (definitions_chosen() && !q.device().is_meta())
    return attention_definition(q, k, v, *plan, bias);
  const DType statistics = q.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
  Tensor out = Tensor::empty({q.size(0), q.size(1), v.size(2)}, q.dtype(), q.device());
  Tensor lse = Tensor::empty({q.size(0), q.size(1)}, statistics, q.device());
  LH_DISPATCH_SCRATCH(q.device(), "attention",
      attention_forward(q.value(), k.value(), v.value(), *plan, out, lse, bias.value()));
  std::vector<Variable> inputs = {q, k, v};
  if (bias.defined()) inputs.push_back(bias);
  return record("attention", inputs, out,
                [q = Saved(q), k = Saved(k), v = Saved(v),
                 bias = bias.defined() ? Saved(bias) : Saved(), biased = bias.defined(), out, lse,
                 plan](Gradients& gradients) {
                  const Tensor tq = q.get(), tk = k.get(), tv = v.get();
                  const Tensor tb = biased ? bias.get() : Tensor();
                  Tensor dq = Tensor::empty_like(tq), dk = Tensor::empty_like(tk),
                         dv = Tensor::empty_like(tv), db;
                  const bool learned = biased && gradients.wants(3);
                  if (learned) db = Tensor::empty_like(tb);
                  LH_DISPATCH_SCRATCH(tq.device(), "attention",
                      attention_backward(tq, tk, tv, out, lse, gradients.output(), *plan,
                                         dq, dk, dv, tb, learned ? &db : nullptr));
                  gradients.add(0, dq);
                  gradients.add(1, dk);
                  gradients.add(2, dv);
                  if (learned) gradients.add(3, db);
                });
}

}  // namespace lh
