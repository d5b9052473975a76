// RMSNorm on the device.
#include "backend/norm.h"

#include "backend/cuda/kernel_call.h"
#include "backend/elementwise.h"
#include "kernels/norm/rms_norm.h"

namespace lh::cuda {
namespace {

void check_operands(const Tensor& x, const Tensor& weight, const Tensor& other, const Tensor& rstd,
                    std::string_view op, std::string_view other_name) {
  check_rank(x, 2, op, "x");
  check_shape(weight, {x.size(1)}, op, "weight");
  check_contiguous(x, op, "x");
  check_like(other, x, op, other_name);
  check_contiguous(other, op, other_name);
  check_sum(rstd, {x.size(0)}, x.dtype(), op, "rstd");
}

/// The kernels read the weight in the dtype of x.
Tensor in_dtype(const Tensor& weight, DType dtype) {
  if (weight.dtype() == dtype && weight.is_contiguous()) return weight;
  Tensor converted = Tensor::empty(weight.shape(), dtype, weight.device());
  copy(weight, converted);
  return converted;
}

}  // namespace

void rms_norm_forward(const Tensor& x, const Tensor& weight, double eps, Tensor& y, Tensor& rstd) {
  check_operands(x, weight, y, rstd, "rms_norm", "y");
  const Tensor w = in_dtype(weight, x.dtype());
  dispatch_kernel(x.dtype(), "rms_norm", [&]<typename T>() {
    kernels::RmsNormFwdParams<kernel_t<T>> p;
    p.x = pointer<T>(x);
    p.weight = pointer<T>(w);
    p.y = pointer<T>(y);
    p.inv_rms = pointer<float>(rstd);
    p.rows = narrow(x.size(0), "rms_norm", "rows");
    p.dim = narrow(x.size(1), "rms_norm", "dim");
    p.eps = static_cast<float>(eps);
    call("rms_norm", {&x, &weight, &y, &rstd},
         [&](gpu::Stream stream) { kernels::rms_norm_fwd(p, stream); });
  });
}

void rms_norm_backward(const Tensor& x, const Tensor& weight, const Tensor& rstd, const Tensor& dy,
                       Tensor& dx, bool accumulate_dx, Tensor& d_weight) {
  check_operands(x, weight, dy, rstd, "rms_norm_backward", "dy");
  check_like(dx, x, "rms_norm_backward", "dx");
  check_contiguous(dx, "rms_norm_backward", "dx");
  check_sum(d_weight, {x.size(1)}, x.dtype(), "rms_norm_backward", "d_weight");
  if (x.numel() == 0) return;
  const Tensor w = in_dtype(weight, x.dtype());
  dispatch_kernel(x.dtype(), "rms_norm_backward", [&]<typename T>() {
    kernels::RmsNormBwdParams<kernel_t<T>> p;
    p.dy = pointer<T>(dy);
    p.h = pointer<T>(x);
    p.weight = pointer<T>(w);
    p.inv_rms = pointer<float>(rstd);
    p.dh_add = accumulate_dx ? pointer<T>(dx) : nullptr;
    p.dh = pointer<T>(dx);
    p.dweight = pointer<float>(d_weight);
    p.accumulate_dweight = true;
    p.rows = narrow(x.size(0), "rms_norm_backward", "rows");
    p.dim = narrow(x.size(1), "rms_norm_backward", "dim");
    const Tensor parts =
        workspace(kernels::rms_norm_bwd_workspace(p.rows, p.dim) * sizeof(float), x.device());
    p.workspace = reinterpret_cast<float*>(parts.raw());
    call("rms_norm_backward", {&x, &weight, &rstd, &dy, &dx, &d_weight},
         [&](gpu::Stream stream) { kernels::rms_norm_bwd(p, stream); });
  });
}

}  // namespace lh::cuda
