#include "nn/rope_table.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "backend/elementwise.h"

namespace lh {
namespace {

constexpr double kTurn = 2 * std::numbers::pi;

/// Angles per position and the factor on cosines and sines.
struct Frequencies {
  std::vector<double> inverse;  // [head_dim / 2] radians per position
  double attention_factor = 1;
};

std::vector<double> plain_frequencies(const ModelConfig& model) {
  const int64_t d = model.resolved_head_dim();
  std::vector<double> inverse(static_cast<size_t>(d / 2));
  for (size_t i = 0; i < inverse.size(); ++i)
    inverse[i] = std::pow(model.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(d));
  return inverse;
}

/// Llama 3.1: long wavelengths are stretched, short ones left alone, with a ramp between.
void scale_llama3(const RopeScaling& scaling, double original, std::vector<double>& inverse) {
  for (double& f : inverse) {
    const double wavelength = kTurn / f;
    if (wavelength > original / scaling.low_freq_factor) {
      f /= scaling.factor;
    } else if (wavelength >= original / scaling.high_freq_factor) {
      const double smooth = (original / wavelength - scaling.low_freq_factor) /
                            (scaling.high_freq_factor - scaling.low_freq_factor);
      f = (1 - smooth) * f / scaling.factor + smooth * f;
    }
  }
}

/// YaRN (Peng et al. 2023): a ramp over dimensions between those with beta_fast and beta_slow turns.
void scale_yarn(const ModelConfig& model, double original, std::vector<double>& inverse) {
  const RopeScaling& scaling = model.rope_scaling;
  const auto d = static_cast<double>(model.resolved_head_dim());
  const auto dimension_of = [&](double turns) {
    return d * std::log(original / (turns * kTurn)) / (2 * std::log(model.rope_theta));
  };
  const double low = std::max(std::floor(dimension_of(scaling.beta_fast)), 0.0);
  double high = std::min(std::ceil(dimension_of(scaling.beta_slow)), d - 1);
  if (low == high) high += 0.001;  // as the reference does, against 0 / 0
  for (size_t i = 0; i < inverse.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    inverse[i] = inverse[i] / scaling.factor * ramp + inverse[i] * (1 - ramp);
  }
}

Frequencies frequencies(const ModelConfig& model, bool beyond_original) {
  const RopeScaling& scaling = model.rope_scaling;
  const auto original = static_cast<double>(
      scaling.original_max_position > 0 ? scaling.original_max_position : model.max_position);
  Frequencies result{plain_frequencies(model)};
  if (scaling.type == "linear") {
    for (double& f : result.inverse) f /= scaling.factor;
  } else if (scaling.type == "llama3") {
    scale_llama3(scaling, original, result.inverse);
  } else if (scaling.type == "yarn") {
    scale_yarn(model, original, result.inverse);
    result.attention_factor = scaling.factor > 1 ? 0.1 * std::log(scaling.factor) + 1 : 1;
  } else if (scaling.type == "longrope") {
    const auto& divisors = beyond_original ? scaling.long_factor : scaling.short_factor;
    LH_CHECK_EQ(divisors.size(), result.inverse.size(), "[rope] longrope factors per frequency");
    for (size_t i = 0; i < divisors.size(); ++i) result.inverse[i] /= divisors[i];
    const double stretch = scaling.factor > 1
                               ? scaling.factor
                               : static_cast<double>(model.max_position) / original;
    result.attention_factor =
        stretch > 1 ? std::sqrt(1 + std::log(stretch) / std::log(original)) : 1;
  }
  if (scaling.attention_factor > 0) result.attention_factor = scaling.attention_factor;
  return result;
}

Tensor make_table(const ModelConfig& model, const Frequencies& frequencies, DType dtype,
                  Device device) {
  const int64_t d = model.resolved_head_dim();
  const int64_t half = d / 2;
  const MemoryScope scope(MemoryOwner::kWeights);
  Tensor table = Tensor::empty({model.max_position, d}, DType::kF64);
  double* row = table.data<double>();
  for (int64_t position = 0; position < model.max_position; ++position, row += d) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) * frequencies.inverse[i];
      row[i] = std::cos(angle) * frequencies.attention_factor;
      row[half + i] = std::sin(angle) * frequencies.attention_factor;
    }
  }
  if (dtype == DType::kF64 && device.is_cpu()) return table;
  Tensor converted = Tensor::empty(table.shape(), dtype);
  LH_DISPATCH(kCpuDevice, "rope_table", copy(table, converted));
  return converted.to(device);
}

}  // namespace

RopeTable::RopeTable(const ModelConfig& model, DType dtype, Device device)
    : max_position_(model.max_position), switch_after_(std::numeric_limits<int64_t>::max()) {
  short_ = make_table(model, frequencies(model, false), dtype, device);
  if (model.rope_scaling.type == "longrope") {
    switch_after_ = model.rope_scaling.original_max_position > 0
                        ? model.rope_scaling.original_max_position
                        : model.max_position;
    if (max_position_ > switch_after_)
      long_ = make_table(model, frequencies(model, true), dtype, device);
  }
}

const Tensor& RopeTable::table(int64_t longest) const {
  if (longest > max_position_)
    fail<ConfigError>("a sequence of {} tokens exceeds the model's max_position {}: raise "
                      "model.max_position or use shorter sequences",
                      longest, max_position_);
  return longest > switch_after_ ? long_ : short_;
}

}  // namespace lh
