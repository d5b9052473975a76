#include "train/machine_peak.h"

#include <algorithm>
#include <cmath>

#include "backend/elementwise.h"
#include "backend/matmul.h"
#include "base/timer.h"

namespace lh {

double measure_matmul_peak(DType dtype, Device device) {
  // Sizes grow until one product takes long enough to be limited by arithmetic alone.
  constexpr int64_t kSmallest = 192, kLargest = 8192;
  constexpr double kLongEnough = 3e-3;
  double best = 0;
  const Timer total;
  for (int64_t size = kSmallest;; size *= 2) {
    size = std::min(size, kLargest);
    Tensor a = Tensor::empty({size, size}, dtype, device), b = Tensor::empty_like(a);
    Tensor c = Tensor::empty_like(a);
    LH_DISPATCH(device, "peak", fill(a, 0.5));
    LH_DISPATCH(device, "peak", fill(b, 0.25));
    const auto seconds = [&] {
      const Timer timer;
      LH_DISPATCH(device, "peak", gemm(a, false, b, true, c, false));
      c.slice(0, 0, 1).slice(1, 0, 1).to(kCpuDevice);  // waits for a device
      return timer.seconds();
    };
    double fastest = std::min(seconds(), seconds());
    const bool last = fastest > kLongEnough || size == kLargest || total.seconds() > 0.5;
    for (int i = 0; last && i < 20 && total.seconds() < 0.5; ++i)
      fastest = std::min(fastest, seconds());
    best = std::max(best, 2 * std::pow(static_cast<double>(size), 3) / fastest);
    if (last) return best;
  }
}

}  // namespace lh
