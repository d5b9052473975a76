#include "train/machine_peak.h"

#include <algorithm>

#include "backend/elementwise.h"
#include "backend/matmul.h"
#include "base/timer.h"

namespace lh {

double measure_matmul_peak(DType dtype) {
  constexpr int64_t kSize = 1536;  // large enough to be limited by arithmetic, small enough for 0.5 s
  Tensor a = Tensor::empty({kSize, kSize}, dtype), b = Tensor::empty({kSize, kSize}, dtype);
  Tensor c = Tensor::empty({kSize, kSize}, dtype);
  LH_DISPATCH(kCpuDevice, "peak", fill(a, 0.5));
  LH_DISPATCH(kCpuDevice, "peak", fill(b, 0.25));
  double best = 0;
  const Timer total;
  for (int i = 0; i < 20 && (i < 3 || total.seconds() < 0.5); ++i) {
    const Timer timer;
    LH_DISPATCH(kCpuDevice, "peak", gemm(a, false, b, true, c, false));
    best = std::max(best, 2.0 * kSize * kSize * kSize / timer.seconds());
  }
  return best;
}

}  // namespace lh
