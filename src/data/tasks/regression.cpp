#include "data/tasks/regression.h"

#include <algorithm>
#include <cmath>

namespace lh {
namespace {

constexpr double kRange = 3;  // bins cover -kRange .. kRange: 99.7 % of a standard normal

int64_t bin_of(double value, int64_t bins) {
  const double place = std::floor((value + kRange) / (2 * kRange) * static_cast<double>(bins));
  return static_cast<int64_t>(std::clamp(place, 0.0, static_cast<double>(bins - 1)));
}

double middle_of(int64_t bin, int64_t bins) {
  return (static_cast<double>(bin) + 0.5) / static_cast<double>(bins) * 2 * kRange - kRange;
}

}  // namespace

Example make_regression(const TaskConfig& task, Philox& random) {
  const int64_t bins = *task.bins;
  const double scale = 1 / std::sqrt(static_cast<double>(*task.dimension));
  std::vector<double> weights;
  for (int64_t i = 0; i < *task.dimension; ++i) weights.push_back(random.normal() * scale);
  Example example;
  for (int64_t point = 0; point < *task.pairs; ++point) {
    double y = 0;
    for (const double weight : weights) {
      const int64_t bin = bin_of(random.normal(), bins);
      example.prompt(bin);
      y += weight * middle_of(bin, bins);
    }
    if (*task.noise > 0) y += *task.noise * random.normal();
    example.answer(bins + bin_of(y, bins));
  }
  return example;
}

}  // namespace lh
