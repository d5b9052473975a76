#include "bench/gate_density.h"

#include "autograd/variable.h"

namespace lh::bench {
namespace {

MixerFigure measured_density(const Decoder& model, const Batch& batch) {
  const GradMode off(false);
  MixerReport report;
  BatchTensors tensors = BatchTensors::from(batch, model.device());
  tensors.layout.set_gates({});
  tensors.layout.set_report(&report);
  model.forward(tensors.tokens, tensors.layout);
  return report.figure(kKvDensity);
}

Parameter& bias_of(Decoder& model, const std::string& mixer) {
  Parameter* bias = model.parameters().find(mixer + ".utility.down.bias");
  LH_CHECK(bias != nullptr, "[bench] expected {} to have a predictor of utilities, it has none", mixer);
  return *bias;
}

}  // namespace

double set_gate_density(Decoder& model, const Batch& batch, double density) {
  // A search by halves for all heads at once. What a head sees moves while those of layers below still search, so
  // steps shrink by less than half: a wrong one can be taken back.
  constexpr int kRounds = 24;
  constexpr double kShrink = 0.75;
  std::map<std::string, std::vector<float>, ByLayer> biases;
  for (const auto& [mixer, heads] : measured_density(model, batch).mixers) biases[mixer].resize(heads.size());
  const auto set = [&] {
    for (const auto& [mixer, values] : biases)
      bias_of(model, mixer).set(Tensor::from(values, {static_cast<int64_t>(values.size())}).to(model.device()));
  };
  set();
  double step = 1;  // logits of fresh predictors lie nearer to their biases than this
  for (int round = 0; round < kRounds; ++round, step *= kShrink) {
    for (const auto& [mixer, heads] : measured_density(model, batch).mixers)
      for (size_t head = 0; head < heads.size(); ++head)
        biases.at(mixer)[head] += static_cast<float>(heads[head].value() < density ? step : -step);
    set();
  }
  return measured_density(model, batch).total().value();
}

}  // namespace lh::bench
