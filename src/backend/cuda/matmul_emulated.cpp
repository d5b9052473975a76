// The products of the emulated device, in place of cuBLASLt: sums in f32, as tensor cores keep them.
#include <vector>

#include "backend/elementwise.h"
#include "backend/matmul.h"
#include "backend/operands.h"

namespace lh::cuda {

void gemm(const Tensor& a, bool trans_a, const Tensor& b, bool trans_b, Tensor& c,
          bool accumulate, const Tensor& bias) {
  const GemmSize size = check_gemm(a, trans_a, b, trans_b, c, bias);
  const auto run = [&]<typename T, typename C>() {
    const int64_t ai = a.strides()[trans_a ? 1 : 0], ak = a.strides()[trans_a ? 0 : 1];
    const int64_t bk = b.strides()[trans_b ? 1 : 0], bj = b.strides()[trans_b ? 0 : 1];
    std::vector<float> row(static_cast<size_t>(size.n));
    for (int64_t i = 0; i < size.m; ++i) {
      std::fill(row.begin(), row.end(), 0.0f);
      for (int64_t k = 0; k < size.k; ++k) {
        const float left = static_cast<float>(a.data<T>()[i * ai + k * ak]);
        const T* right = b.data<T>() + k * bk;
        for (int64_t j = 0; j < size.n; ++j)
          row[static_cast<size_t>(j)] += left * static_cast<float>(right[j * bj]);
      }
      C* out = c.data<C>() + i * c.strides()[0];
      for (int64_t j = 0; j < size.n; ++j) {
        const float old = accumulate ? static_cast<float>(out[j]) : 0.0f;
        const float added = bias.defined() ? static_cast<float>(bias.data<C>()[j]) : 0.0f;
        out[j] = static_cast<C>(old + row[static_cast<size_t>(j)] + added);
      }
    }
  };
  if (a.dtype() == DType::kF32) return run.template operator()<float, float>();
  if (a.dtype() != DType::kBF16)
    fail<ShapeError>("[gemm] the CUDA backend computes in f32 and bf16, got {}", a.str());
  if (c.dtype() == DType::kF32) return run.template operator()<bf16, float>();
  run.template operator()<bf16, bf16>();
}

void gemm_bias_backward(const Tensor& dy, const Tensor& x, Tensor& d_weight, bool accumulate,
                        Tensor& d_bias) {
  gemm(dy, true, x, false, d_weight, accumulate);
  bias_backward(dy, d_bias);
}

}  // namespace lh::cuda
