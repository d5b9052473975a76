// Gradients against central differences in fp64.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "autograd/engine.h"
#include "support/compare.h"

namespace lh::test {

/// Checks d(sum of weights * function(inputs)) / d inputs for f64 leaves, with fixed random weights
/// so that every output counts differently. Truncation error is O(step^2), rounding O(1e-16/step).
inline void check_gradients(const std::function<Variable(const std::vector<Variable>&)>& function,
                            std::vector<Tensor> values, double tolerance = 1e-7,
                            double step = 1e-5) {
  std::vector<Variable> leaves;
  for (const Tensor& value : values) leaves.push_back(Variable::leaf(value));
  const Variable output = function(leaves);
  const Tensor weights = random_tensor(output.shape(), DType::kF64, 99);
  backward(output, weights);

  const auto objective = [&] {
    const GradMode off(false);
    const std::vector<double> out = to_doubles(function(leaves).value());
    const std::vector<double> w = to_doubles(weights);
    double sum = 0;
    for (size_t i = 0; i < out.size(); ++i) sum += out[i] * w[i];
    return sum;
  };
  for (size_t input = 0; input < values.size(); ++input) {
    REQUIRE_MESSAGE(leaves[input].grad().defined(), "no gradient for input ", input);
    const std::vector<double> gradient = to_doubles(leaves[input].grad());
    const auto elements = values[input].span<double>();
    double scale = 1;
    for (const double g : gradient) scale = std::max(scale, std::abs(g));
    for (size_t i = 0; i < elements.size(); ++i) {
      const double kept = elements[i];
      elements[i] = kept + step;
      const double up = objective();
      elements[i] = kept - step;
      const double down = objective();
      elements[i] = kept;
      const double numeric = (up - down) / (2 * step);
      CHECK_MESSAGE(std::abs(gradient[i] - numeric) <= tolerance * scale, "input ", input,
                    " element ", i, ": gradient ", gradient[i], ", central difference ", numeric);
    }
  }
}

}  // namespace lh::test
