// Rotary position embedding on the device. Positions are not checked against the table here, which
// would mean waiting for them: the kernel makes such a token NaN.
#include "backend/rope.h"

#include "backend/cuda/kernel_call.h"
#include "kernels/rope/rope.h"

namespace lh::cuda {

void rope(const Tensor& x, const Tensor& table, const Tensor& positions, bool inverse, Tensor& y) {
  check_rank(x, 3, "rope", "x");
  const int64_t n = x.size(0), d = x.size(2);
  if (d % 2 != 0) fail<ShapeError>("[rope] head dimension must be even, got {}", x.str());
  check_like(y, x, "rope", "y");
  check_rank(table, 2, "rope", "table");
  check_shape(table, {table.size(0), d}, "rope", "table");
  check_dtype(table, DType::kF32, "rope", "table");
  check_contiguous(table, "rope", "table");
  check_shape(positions, {n}, "rope", "positions");
  check_dtype(positions, DType::kI32, "rope", "positions");
  check_contiguous(positions, "rope", "positions");
  dispatch_kernel(x.dtype(), "rope", [&]<typename T>() {
    kernels::RopeParams<kernel_t<T>> p;
    p.x = pointer<T>(x);
    p.y = pointer<T>(y);
    p.table = pointer<float>(table);
    p.positions = positions.data<int32_t>();
    p.x_stride = row_view(x, 1, "rope", "x").stride;
    p.y_stride = row_view(y, 1, "rope", "y").stride;
    p.n = n;
    p.table_rows = table.size(0);
    p.heads = narrow(x.size(1), "rope", "heads");
    p.d = narrow(d, "rope", "head_dim");
    p.inverse = inverse;
    call("rope", {&x, &table, &positions, &y},
         [&](gpu::Stream stream) { kernels::rope(p, stream); });
  });
}

}  // namespace lh::cuda
