// Affine recurrences on the device; states are f32.
#include "backend/recurrent.h"

#include "backend/affine.h"
#include "backend/cuda/kernel_call.h"
#include "kernels/recurrent/affine_fold.h"

namespace lh::cuda {
namespace {

kernels::AffineParams params(const AffineSize& size, std::string_view op) {
  kernels::AffineParams p;
  p.transition = size.kind == AffineKind::kScalar     ? kernels::Transition::kScalar
                 : size.kind == AffineKind::kDiagonal ? kernels::Transition::kDiagonal
                                                      : kernels::Transition::kMatrix;
  p.segments = narrow(size.segments, op, "segments");
  p.heads = narrow(size.heads, op, "heads");
  p.k = narrow(size.k, op, "rows of a state");
  p.v = narrow(size.v, op, "columns of a state");
  return p;
}

}  // namespace

void affine_fold(const Tensor& a, const Tensor& b, bool backwards, Tensor& out) {
  const AffineSize size = check_affine(a, b, out, "affine_fold");
  check_dtype(b, DType::kF32, "affine_fold", "states");
  kernels::AffineParams p = params(size, "affine_fold");
  p.a = a.data<float>();
  p.b = b.data<float>();
  p.out = out.data<float>();
  p.backwards = backwards;
  call("affine_fold", {&b, &a}, [&](gpu::Stream stream) { kernels::affine_fold(p, stream); });
}

void affine_transition_gradient(const Tensor& g, const Tensor& s, Tensor& da) {
  const AffineSize size = check_affine(da, g, s, "affine_transition_gradient");
  check_dtype(g, DType::kF32, "affine_transition_gradient", "states");
  call("affine_transition_gradient", {&g, &s, &da}, [&](gpu::Stream stream) {
    kernels::affine_transition_gradient(g.data<float>(), s.data<float>(),
                                        params(size, "affine_transition_gradient"), da.data<float>(),
                                        stream);
  });
}

}  // namespace lh::cuda
