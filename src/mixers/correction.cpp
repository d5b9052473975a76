#include "mixers/correction.h"

#include "backend/elementwise.h"
#include "backend/reduce.h"

namespace lh {

double squares_of(const Tensor& t) {
  Tensor sum = Tensor::zeros({1}, DType::kF64, t.device());
  LH_DISPATCH(t.device(), "mixer report", sum_of_squares(t, sum, false));
  return sum.to(kCpuDevice).item();
}

void report_correction(MixerReport& report, const std::string& mixer, const Tensor& out,
                       const Tensor& plain) {
  Tensor change = Tensor::empty_like(out);
  LH_DISPATCH(out.device(), "mixer report", add_scaled(out, 1, plain, -1, change));
  ReportedMean& ratio = correction_ratio(report, mixer);
  ratio.sum += squares_of(change);
  ratio.weight += squares_of(plain);
}

ReportedMean& correction_ratio(MixerReport& report, const std::string& mixer) {
  return report.root_mean_square("correction_ratio", mixer);
}

}  // namespace lh
