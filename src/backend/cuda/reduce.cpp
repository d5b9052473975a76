// Sums over tensors on the device; results stay there.
#include "backend/reduce.h"

#include "backend/cuda/device_table.h"
#include "backend/cuda/kernel_call.h"
#include "kernels/reduce/list_norm.h"
#include "kernels/reduce/reduce.h"

namespace lh::cuda {
namespace {

void reduce(kernels::Reduction kind, const Tensor& x, Tensor& out, bool accumulate,
            std::string_view op) {
  check_contiguous(x, op, "x");
  check_shape(out, {1}, op, "out");
  check_dtype(out, DType::kF64, op, "out");
  const Tensor parts = workspace(kernels::kReduceWorkspace * sizeof(double), x.device());
  dispatch_kernel(x.dtype(), op, [&]<typename T>() {
    call(op, {&x, &out}, [&](gpu::Stream stream) {
      kernels::reduce<kernel_t<T>>(kind, pointer<T>(x), x.numel(), accumulate, out.data<double>(),
                                   reinterpret_cast<double*>(parts.raw()), stream);
    });
  });
}

}  // namespace

void sum_of_squares(const Tensor& x, Tensor& out, bool accumulate) {
  reduce(kernels::Reduction::kSumOfSquares, x, out, accumulate, "sum_of_squares");
}

void sum_of_squares(const TensorList& list, Tensor& out) {
  check_shape(out, {1}, "sum_of_squares", "out");
  std::vector<kernels::NormTensor> entries;
  int64_t chunks = 0;
  for (const Tensor& x : list.tensors) {
    check_contiguous(x, "sum_of_squares", "x");
    if (x.numel() == 0) continue;
    entries.push_back({x.data<float>(), x.numel(), chunks});
    chunks += kernels::chunks_of(x.numel());
  }
  const int count = narrow(static_cast<int64_t>(entries.size()), "sum_of_squares", "tensors");
  const Tensor parts = workspace(static_cast<size_t>(narrow(chunks, "sum_of_squares", "chunks")) *
                                     sizeof(double),
                                 out.device());
  call("sum_of_squares", {&out}, [&](gpu::Stream stream) {
    kernels::list_sum_of_squares(device_table(list.backend_state, entries, out.device()), count,
                                 chunks, out.data<double>(),
                                 reinterpret_cast<double*>(parts.raw()), stream);
  });
}

void sum(const Tensor& x, Tensor& out, bool accumulate) {
  reduce(kernels::Reduction::kSum, x, out, accumulate, "sum");
}

void inverse_norm(const Tensor& sum_of_squares, double eps, Tensor& out) {
  check_shape(sum_of_squares, {1}, "inverse_norm", "sum_of_squares");
  check_shape(out, {1}, "inverse_norm", "out");
  call("inverse_norm", {&sum_of_squares, &out}, [&](gpu::Stream stream) {
    kernels::inverse_norm(sum_of_squares.data<double>(), eps, out.data<float>(), stream);
  });
}

void count_non_finite(const Tensor& x, Tensor& out) {
  check_contiguous(x, "count_non_finite", "x");
  check_shape(out, {1}, "count_non_finite", "out");
  const Tensor parts = workspace(kernels::kReduceWorkspace * sizeof(double), x.device());
  dispatch_kernel(x.dtype(), "count_non_finite", [&]<typename T>() {
    call("count_non_finite", {&x, &out}, [&](gpu::Stream stream) {
      kernels::count_non_finite<kernel_t<T>>(pointer<T>(x), x.numel(), out.data<int64_t>(),
                                             reinterpret_cast<double*>(parts.raw()), stream);
    });
  });
}

}  // namespace lh::cuda
