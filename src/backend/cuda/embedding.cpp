// Embedding on the device. Ids are not checked here, which would mean waiting for them: the kernel
// makes such a row NaN, and its gradient is dropped.
#include "backend/embedding.h"

#include "backend/cuda/kernel_call.h"
#include "kernels/embedding/embedding.h"

namespace lh::cuda {

void embedding_forward(const Tensor& weight, const Tensor& ids, double scale, Tensor& y) {
  check_rank(weight, 2, "embedding", "weight");
  check_contiguous(weight, "embedding", "weight");
  check_rank(ids, 1, "embedding", "ids");
  check_dtype(ids, DType::kI32, "embedding", "ids");
  check_contiguous(ids, "embedding", "ids");
  check_shape(y, {ids.size(0), weight.size(1)}, "embedding", "y");
  check_dtype(y, weight.dtype(), "embedding", "y");
  check_contiguous(y, "embedding", "y");
  dispatch_kernel(weight.dtype(), "embedding", [&]<typename T>() {
    kernels::EmbeddingFwdParams<kernel_t<T>> p;
    p.weight = pointer<T>(weight);
    p.ids = ids.data<int32_t>();
    p.y = pointer<T>(y);
    p.n = narrow(ids.size(0), "embedding", "n");
    p.dim = narrow(weight.size(1), "embedding", "d");
    p.vocab = narrow(weight.size(0), "embedding", "vocab");
    p.scale = static_cast<float>(scale);
    call("embedding", {&weight, &ids, &y},
         [&](gpu::Stream stream) { kernels::embedding_fwd(p, stream); });
  });
}

void embedding_backward(const Tensor& ids, const Tensor& dy, double scale, Tensor& d_weight) {
  check_rank(d_weight, 2, "embedding_backward", "d_weight");
  check_rank(ids, 1, "embedding_backward", "ids");
  check_dtype(ids, DType::kI32, "embedding_backward", "ids");
  check_contiguous(ids, "embedding_backward", "ids");
  check_shape(dy, {ids.size(0), d_weight.size(1)}, "embedding_backward", "dy");
  check_contiguous(dy, "embedding_backward", "dy");
  check_sum(d_weight, d_weight.shape(), dy.dtype(), "embedding_backward", "d_weight");
  dispatch_kernel(dy.dtype(), "embedding_backward", [&]<typename T>() {
    kernels::EmbeddingBwdParams<kernel_t<T>> p;
    p.ids = ids.data<int32_t>();
    p.dy = pointer<T>(dy);
    p.dweight = pointer<float>(d_weight);
    p.n = narrow(ids.size(0), "embedding_backward", "n");
    p.dim = narrow(d_weight.size(1), "embedding_backward", "d");
    p.vocab = narrow(d_weight.size(0), "embedding_backward", "vocab");
    p.scale = static_cast<float>(scale);
    const Tensor scratch =
        workspace(kernels::embedding_bwd_workspace(p.n, p.dim) * sizeof(int32_t), dy.device());
    p.workspace = reinterpret_cast<int32_t*>(scratch.raw());
    call("embedding_backward", {&ids, &dy, &d_weight},
         [&](gpu::Stream stream) { kernels::embedding_bwd(p, stream); });
  });
}

}  // namespace lh::cuda
