// Products of a few rows with a weight matrix (decoding): bound by reading the weight once, which a
// blocked matrix product does not do at full speed.
#include <vector>

#include "backend/cpu/lanes.h"
#include "backend/operands.h"
#include "backend/cpu/parallel.h"
#include "backend/cpu/simd/elementwise.h"
#include "backend/cpu/simd/gemv.h"
#include "backend/elementwise.h"
#include "backend/matmul.h"

namespace lh::cpu {

void gemv(const Tensor& x, const Tensor& w, Tensor& y) {
  check_rank(x, 2, "gemv", "x");
  check_rank(w, 2, "gemv", "w");
  const int64_t rows = x.size(0), k = x.size(1), n = w.size(0);
  if (w.size(1) != k || w.dtype() != x.dtype())
    fail<ShapeError>("[gemv] expected x [r, k] and w [n, k] of one dtype, got {} and {}",
                     x.str(), w.str());
  check_shape(y, {rows, n}, "gemv", "y");
  check_dtype(y, x.dtype(), "gemv", "y");
  check_contiguous(y, "gemv", "y");
  if (x.dtype() == DType::kF64) return gemm(x, false, w, true, y, false);
  LH_CHECK(k == 0 || w.strides()[1] == 1, "[gemv] w: expected inner stride 1, got strides {}", w.strides().str());
  Tensor wide_x = x;
  if (x.dtype() != DType::kF32 || !x.is_contiguous()) {
    wide_x = Tensor::empty(x.shape(), DType::kF32);
    copy(x, wide_x);
  }
  const float* px = wide_x.data<float>();
  const int64_t stride = w.strides()[0];
  // 64 KiB of f32 weight per task: the rows of x find it in the cache, and tasks are few.
  const int64_t block = std::max<int64_t>(8, kFlatBlock / std::max<int64_t>(k, 1) / 8 * 8);
  const auto each_block = [&]<typename T>(const T* pw, auto&& finish) {
    for_each_block(n, block, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t r = 0; r < rows; ++r) finish(pw + begin * stride, r, begin, end - begin);
    });
  };
  if (x.dtype() == DType::kF32) {
    float* py = y.data<float>();
    each_block(w.data<float>(), [&](const float* pw, int64_t r, int64_t begin, int64_t count) {
      LH_SIMD_CALL(dot_rows(px + r * k, pw, stride, count, k, py + r * n + begin));
    });
    return;
  }
  uint16_t* py = lanes<bf16>(y);
  each_block(lanes<bf16>(w), [&](const uint16_t* pw, int64_t r, int64_t begin, int64_t count) {
    constexpr int64_t kPiece = 64;
    float sums[kPiece];
    for (int64_t i = 0; i < count; i += kPiece) {
      const int64_t part = std::min(kPiece, count - i);
      LH_SIMD_CALL(dot_rows(px + r * k, pw + i * stride, stride, part, k, sums));
      LH_SIMD_CALL(convert(sums, py + r * n + begin + i, part));
    }
  });
}

}  // namespace lh::cpu
