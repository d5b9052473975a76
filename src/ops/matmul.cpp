#include "ops/matmul.h"

#include "backend/matmul.h"

namespace lh {

Variable matmul(const Variable& a, const Variable& b, bool transpose_b) {
  const int inner = transpose_b ? 1 : 0;
  if (a.value().rank() != 2 || b.value().rank() != 2 || a.size(1) != b.size(inner))
    fail<ShapeError>("[matmul] expected a [m, k] and b {}, got {} and {}",
                     transpose_b ? "[n, k]" : "[k, n]", a.value().str(), b.value().str());
  check_dtype(b.value(), a.dtype(), "matmul", "b");
  Tensor out = Tensor::empty({a.size(0), b.size(1 - inner)}, a.dtype(), a.device());
  LH_DISPATCH_SCRATCH(a.device(), "matmul", gemm(a.value(), false, b.value(), transpose_b, out, false));
  return record("matmul", {a, b}, out,
                [a = Saved(a), b = Saved(b), transpose_b](Gradients& gradients) {
                  const Tensor& d = gradients.output();
                  if (gradients.wants(0)) {
                    Gradients::Target da = gradients.target(0);
                    LH_DISPATCH_SCRATCH(d.device(), "matmul",
                                        gemm(d, false, b.get(), !transpose_b, da.tensor, da.holds_sum));
                  }
                  if (!gradients.wants(1)) return;
                  Gradients::Target db = gradients.target(1);
                  const Tensor x = a.get();
                  const Tensor &left = transpose_b ? d : x, &right = transpose_b ? x : d;
                  LH_DISPATCH_SCRATCH(d.device(), "matmul",
                                      gemm(left, true, right, false, db.tensor, db.holds_sum));
                });
}

}  // namespace lh
