// Linear + cross-entropy, a chunk of tokens at a time: only the chunk's logits ever exist. The
// logits are f32; their gradient takes the dtype of x, in place when that is f32.
#include "backend/loss.h"

#include <algorithm>

#include "backend/cuda/kernel_call.h"
#include "backend/matmul.h"
#include "kernels/loss/cross_entropy.h"

namespace lh::cuda {
namespace {

// Bytes of the chunk's logits: large enough to fill the device, small beside the model.
constexpr int64_t kChunkBytes = int64_t{256} << 20;

}  // namespace

void linear_cross_entropy(const Tensor& x, const Tensor& w, const Tensor& targets,
                          const LinearCrossEntropyOptions& options, Tensor& losses, Tensor* dx,
                          Tensor* d_weight) {
  const int64_t rows = x.size(0), vocab = w.size(0);
  check_shape(targets, {rows}, "linear_cross_entropy", "targets");
  check_sum(losses, {rows}, x.dtype(), "linear_cross_entropy", "losses");
  const int64_t chunk = options.chunk_tokens > 0
                            ? options.chunk_tokens
                            : std::clamp<int64_t>(kChunkBytes / (vocab * 4), 128,
                                                  std::max<int64_t>(rows, 128));
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t end = std::min(rows, begin + chunk);
    const Tensor part = x.slice(0, begin, end);
    Tensor logits = Tensor::empty({end - begin, vocab}, DType::kF32, x.device());
    gemm(part, false, w, true, logits, false);
    Tensor d_logits;
    if (dx != nullptr)
      d_logits = x.dtype() == DType::kF32
                     ? logits
                     : Tensor::empty(logits.shape(), x.dtype(), x.device());
    dispatch_kernel(x.dtype(), "linear_cross_entropy", [&]<typename T>() {
      kernels::CrossEntropyParams<kernel_t<T>> p;
      p.logits = pointer<float>(logits);
      p.targets = targets.data<int32_t>() + begin;
      p.losses = losses.data<float>() + begin;
      p.d_logits = pointer<T>(d_logits);
      p.logit_scale = static_cast<float>(options.logit_scale);
      p.grad_scale = static_cast<float>(options.grad_scale);
      p.rows = narrow(end - begin, "linear_cross_entropy", "rows");
      p.vocab = narrow(vocab, "linear_cross_entropy", "vocab");
      call("linear_cross_entropy", {&x, &w, &targets},
           [&](gpu::Stream stream) { kernels::cross_entropy(p, stream); });
    });
    if (dx == nullptr) continue;
    Tensor dx_part = dx->slice(0, begin, end);
    gemm(d_logits, false, w, false, dx_part, false);
    gemm(d_logits, true, part, false, *d_weight, true);
  }
}

}  // namespace lh::cuda
