#include "backend/gated_append.h"

#include "backend/cuda/kernel_call.h"
#include "backend/paged_operands.h"
#include "kernels/attention/gated_append.h"

namespace lh::cuda {

void gated_append(const Tensor& k, const Tensor& v, const Tensor& gates, GatedCache& cache) {
  constexpr const char* kOp = "gated_append";
  check_gated_append(k, v, gates, cache, kOp);
  const PagedKeys& keys = cache.keys;
  dispatch_kernel(k.dtype(), kOp, [&]<typename T>() {
    kernels::GatedAppendParams<kernel_t<T>> p;
    p.new_k = pointer<T>(k);
    p.new_v = pointer<T>(v);
    p.gates = pointer<float>(gates);
    p.k = pointer<T>(keys.k);
    p.v = pointer<T>(keys.v);
    p.pages = pointer<int32_t>(keys.table);
    p.bits = pointer<uint8_t>(cache.bits);
    p.seen = pointer<int32_t>(cache.seen);
    p.lengths = pointer<int32_t>(keys.lengths);
    p.k_stride = row_view(k, 1, kOp, "k").stride;
    p.v_stride = row_view(v, 1, kOp, "v").stride;
    p.tokens = narrow(k.size(0), kOp, "tokens");
    p.heads = narrow(k.size(1), kOp, "heads");
    p.head_dim = narrow(k.size(2), kOp, "head_dim");
    p.value_dim = narrow(v.size(2), kOp, "value_dim");
    p.window = narrow(cache.bits.size(1), kOp, "window");
    p.page_size = narrow(keys.k.size(1), kOp, "page rows");
    p.pages_per_head = narrow(keys.table.size(1), kOp, "pages of a head");
    call(kOp,
         {&k, &v, &gates, &keys.k, &keys.v, &keys.table, &keys.lengths, &cache.seen, &cache.bits},
         [&](gpu::Stream stream) { kernels::gated_append(p, stream); });
  });
}

}  // namespace lh::cuda
