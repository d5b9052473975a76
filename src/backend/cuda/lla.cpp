// Exact local linear attention by way of the host: the reference of parallax.h at small scale, whose
// cost is f64 factorisations that a device has little use for. It waits for the device. Its scratch memory is
// the host's, which a plan for a device does not count.
#include "backend/lla.h"

#include "backend/elementwise.h"

namespace lh::cuda {
namespace {

Tensor on_host(const Tensor& t) {
  if (t.is_contiguous()) return t.to(kCpuDevice);
  Tensor packed = Tensor::empty(t.shape(), t.dtype(), t.device());
  copy(t, packed);
  return packed.to(kCpuDevice);
}

}  // namespace

void lla_forward(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionPlan& plan,
                 const LlaOptions& options, Tensor& out) {
  if (q.device().is_meta()) return;
  Tensor host = Tensor::empty(out.shape(), out.dtype());
  cpu::lla_forward(on_host(q), on_host(k), on_host(v), plan, options, host);
  out.copy_bytes_from(host);
}

void lla_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& d_out,
                  const AttentionPlan& plan, const LlaOptions& options, LlaGradients& gradients) {
  if (q.device().is_meta()) return;
  LlaGradients host{Tensor::empty(q.shape(), q.dtype()), Tensor::empty(k.shape(), k.dtype()),
                    Tensor::empty(v.shape(), v.dtype())};
  cpu::lla_backward(on_host(q), on_host(k), on_host(v), on_host(d_out), plan, options, host);
  gradients.dq.copy_bytes_from(host.dq);
  gradients.dk.copy_bytes_from(host.dk);
  gradients.dv.copy_bytes_from(host.dv);
}

}  // namespace lh::cuda
