// The products of the emulated device, in place of cuBLASLt: sums in f32, as tensor cores keep them.
#include <vector>

#include "backend/cuda/kernel_call.h"
#include "backend/elementwise.h"
#include "backend/matmul.h"
#include "backend/operands.h"
#include "kernels/xpu/emu/stream.h"

namespace lh::cuda {
namespace {

/// Addresses and strides alone, as a recorded launch keeps them.
template <typename T, typename C>
struct Product {
  const T *a, *b;
  C* c;
  const C* bias;
  int64_t m, n, k, ai, ak, bk, bj, ci;
  bool accumulate;

  void operator()() const {
    std::vector<float> row(static_cast<size_t>(n));
    for (int64_t i = 0; i < m; ++i) {
      std::fill(row.begin(), row.end(), 0.0f);
      for (int64_t step = 0; step < k; ++step) {
        const float left = static_cast<float>(a[i * ai + step * ak]);
        const T* right = b + step * bk;
        for (int64_t j = 0; j < n; ++j)
          row[static_cast<size_t>(j)] += left * static_cast<float>(right[j * bj]);
      }
      C* out = c + i * ci;
      for (int64_t j = 0; j < n; ++j) {
        const float old = accumulate ? static_cast<float>(out[j]) : 0.0f;
        const float added = bias != nullptr ? static_cast<float>(bias[j]) : 0.0f;
        out[j] = static_cast<C>(old + row[static_cast<size_t>(j)] + added);
      }
    }
  }
};

}  // namespace

void gemm(const Tensor& a, bool trans_a, const Tensor& b, bool trans_b, Tensor& c,
          bool accumulate, const Tensor& bias) {
  const GemmSize size = check_gemm(a, trans_a, b, trans_b, c, bias);
  const auto run = [&]<typename T, typename C>() {
    const Product<T, C> product{.a = a.data<T>(),
                                .b = b.data<T>(),
                                .c = c.data<C>(),
                                .bias = bias.defined() ? bias.data<C>() : nullptr,
                                .m = size.m,
                                .n = size.n,
                                .k = size.k,
                                .ai = a.strides()[trans_a ? 1 : 0],
                                .ak = a.strides()[trans_a ? 0 : 1],
                                .bk = b.strides()[trans_b ? 1 : 0],
                                .bj = b.strides()[trans_b ? 0 : 1],
                                .ci = c.strides()[0],
                                .accumulate = accumulate};
    call("gemm", {&a, &b, &c, &bias},
         [&](gpu::Stream stream) { xpu::emu::enqueue(stream, product); });
  };
  if (a.dtype() == DType::kF32) return run.template operator()<float, float>();
  if (a.dtype() != DType::kBF16)
    fail<ShapeError>("[gemm] expected f32 or bf16, which the CUDA backend computes in, got {}", a.str());
  if (c.dtype() == DType::kF32) return run.template operator()<bf16, float>();
  run.template operator()<bf16, bf16>();
}

void gemm_bias_backward(const Tensor& dy, const Tensor& x, Tensor& d_weight, bool accumulate,
                        Tensor& d_bias) {
  gemm(dy, true, x, false, d_weight, accumulate);
  bias_backward(dy, d_bias);
}

void shared_workspace(Device, Tensor& result) {
  result = Tensor();
}

}  // namespace lh::cuda
