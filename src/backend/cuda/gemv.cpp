// Products of a few rows on the device.
#include "backend/cuda/kernel_call.h"
#include "backend/elementwise.h"
#include "backend/matmul.h"
#include "kernels/gemm/gemv.h"

namespace lh::cuda {

void gemv(const Tensor& x, const Tensor& w, Tensor& y) {
  check_rank(x, 2, "gemv", "x");
  check_rank(w, 2, "gemv", "w");
  if (w.size(1) != x.size(1) || w.dtype() != x.dtype())
    fail<ShapeError>("[gemv] expected x [r, k] and w [n, k] of one dtype, got {} and {}",
                     x.str(), w.str());
  check_shape(y, {x.size(0), w.size(0)}, "gemv", "y");
  check_dtype(y, x.dtype(), "gemv", "y");
  check_contiguous(y, "gemv", "y");
  LH_CHECK(w.size(1) <= 1 || w.strides()[1] == 1, "[gemv] w: expected inner stride 1, got strides {}", w.strides().str());
  Tensor rows = x;
  if (!x.is_contiguous()) {
    rows = Tensor::empty(x.shape(), x.dtype(), x.device());
    copy(x, rows);
  }
  dispatch_kernel(x.dtype(), "gemv", [&]<typename T>() {
    call("gemv", {&x, &w, &y}, [&](gpu::Stream stream) {
      kernels::gemv<kernel_t<T>>(pointer<T>(rows), pointer<T>(w), pointer<T>(y),
                                 narrow(x.size(0), "gemv", "rows"), narrow(w.size(0), "gemv", "n"),
                                 narrow(w.size(1), "gemv", "k"), w.strides()[0], stream);
    });
  });
}

}  // namespace lh::cuda
