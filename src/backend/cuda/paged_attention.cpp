// Attention over pages by the decoding kernel: a sequence is one kv head with keys of its own.
#include "backend/paged_attention.h"

#include "backend/cuda/attention_decode.h"
#include "backend/cuda/kernel_call.h"
#include "backend/paged_operands.h"

namespace lh::cuda {

void paged_attention(const Tensor& q, const PagedKeys& keys, double scale, Tensor& out,
                     Tensor& lse) {
  constexpr const char* kOp = "paged_attention";
  check_paged_attention(q, keys, scale, out, lse, kOp);
  // All that the host knows of the lengths. A sequence that is shorter is cut into fewer parts of the
  // same size, so the work stays even.
  std::vector<kernels::AttentionSegment> longest;
  for (const int64_t capacity : keys.capacities) {
    const int count = narrow(capacity, kOp, "keys of a sequence");
    longest.push_back({0, 1, 0, count, count - 1});
  }
  dispatch_kernel(q.dtype(), kOp, [&]<typename T>() {
    kernels::AttentionDecodeParams<kernel_t<T>> p;
    p.q = pointer<T>(q);
    p.k = pointer<T>(keys.k);
    p.v = pointer<T>(keys.v);
    p.out = pointer<T>(out);
    p.lse = pointer<float>(lse);
    p.heads = narrow(q.size(1), kOp, "heads");
    p.kv_heads = 1;
    p.head_dim = narrow(q.size(2), kOp, "head_dim");
    p.value_dim = narrow(out.size(2), kOp, "value_dim");
    p.q_stride = row_view(q, 1, kOp, "q").stride;
    p.k_stride = p.head_dim;
    p.v_stride = p.value_dim;
    p.out_stride = row_view(out, 1, kOp, "out").stride;
    p.scale = static_cast<float>(scale);
    p.lengths = pointer<int32_t>(keys.lengths);
    p.pages = pointer<int32_t>(keys.table);
    p.page_size = narrow(keys.k.size(1), kOp, "page rows");
    p.pages_per_sequence = narrow(keys.table.size(1), kOp, "pages of a sequence");
    call(kOp, {&q, &keys.k, &keys.v, &keys.table, &keys.lengths, &out, &lse},
         [&](gpu::Stream stream) {
           const Tensor parts = share_keys(p, longest, q.device());
           kernels::attention_decode(p, stream);
         });
  });
}

}  // namespace lh::cuda
