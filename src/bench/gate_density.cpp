#include "bench/gate_density.h"

#include <cmath>

#include "autograd/variable.h"
#include "mixers/mixer_report.h"
#include "train/batch_tensors.h"

namespace lh::bench {
namespace {

double kept(const Decoder& model, const BatchTensors& tensors, double threshold) {
  const GradMode off(false);
  MixerReport report;
  model.describe(report);
  SequenceLayout layout = tensors.layout;
  GatePhase gates;
  gates.threshold = threshold;
  layout.set_gates(gates);
  layout.set_report(&report);
  model.loss(tensors.tokens, tensors.targets, layout);
  return report.figure(kKvDensity).total().value();
}

}  // namespace

Density threshold_keeping(const Decoder& model, const Batch& batch, double share) {
  const BatchTensors tensors = BatchTensors::from(batch, model.device());
  const auto threshold = [](double logit) { return 1 / (1 + std::exp(-logit)); };
  double low = -16, high = 16;  // utilities are open, closed
  while (high - low > 1e-3) {
    const double middle = (low + high) / 2;
    (kept(model, tensors, threshold(middle)) > share ? low : high) = middle;
  }
  return {threshold(high), kept(model, tensors, threshold(high))};
}

}  // namespace lh::bench
