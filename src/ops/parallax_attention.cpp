#include "ops/parallax_attention.h"

#include <cmath>

#include "backend/elementwise.h"
#include "backend/operands.h"

namespace lh {
namespace {

constexpr const char* kOp = "parallax_attention";

void check_rank_of_all(const ParallaxInputs& in) {
  for (const auto& [t, name] :
       {std::pair{&in.q, "q"}, {&in.r, "r"}, {&in.k, "k"}, {&in.v, "v"}})
    check_rank(*t, 3, kOp, name);
}

/// A contiguous copy in double on the CPU.
Tensor in_double(const Tensor& t) {
  Tensor wide = Tensor::empty(t.shape(), DType::kF64);
  cpu::copy(t.to(kCpuDevice), wide);
  return wide;
}

}  // namespace

ParallaxAttention parallax_attention(const Variable& q, const Variable& r, const Variable& k,
                                     const Variable& v,
                                     std::shared_ptr<const AttentionPlan> plan) {
  const ParallaxInputs inputs{q.value(), r.value(), k.value(), v.value()};
  check_rank_of_all(inputs);
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

ParallaxDiagnostics parallax_diagnostics(const ParallaxResult& result, const Tensor& r) {
  const int64_t rows = r.size(0), heads = r.size(1), d = r.size(2), v_d = result.out.size(2);
  const Tensor out = in_double(result.out), intercept = in_double(result.intercept),
               probe = in_double(r);
  ParallaxDiagnostics diagnostics;
  for (int64_t h = 0; h < heads; ++h) {
    double correction = 0, plain = 0, norm = 0;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t x = 0; x < v_d; ++x) {
        const int64_t at = (i * heads + h) * v_d + x;
        const double base = intercept.data<double>()[at], change = out.data<double>()[at] - base;
        correction += change * change;
        plain += base * base;
      }
      for (int64_t x = 0; x < d; ++x) {
        const double value = probe.data<double>()[(i * heads + h) * d + x];
        norm += value * value;
      }
    }
    diagnostics.correction_ratio.push_back(plain > 0 ? std::sqrt(correction / plain) : 0);
    diagnostics.probe_norm.push_back(std::sqrt(norm / static_cast<double>(std::max<int64_t>(rows, 1))));
  }
  return diagnostics;
}

}  // namespace lh
