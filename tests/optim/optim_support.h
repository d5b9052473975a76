// One-parameter stores and gradients of chosen values.
#pragma once

#include <doctest/doctest.h>

#include "autograd/engine.h"
#include "backend/elementwise.h"
#include "ops/elementwise.h"
#include "optim/optimizer.h"
#include "support/compare.h"

namespace lh::test {

/// The gradient of sum(parameter * gradient) is `gradient`, exactly.
inline void set_gradient(Parameter& parameter, const Tensor& gradient) {
  parameter.variable.zero_grad();
  Tensor ones = Tensor::empty_like(gradient);
  cpu::fill(ones, 1);
  backward(multiply(parameter.variable, Variable(gradient)), ones);
}

inline void set_value(Parameter& parameter, const Tensor& value) {
  parameter.set(value);
}

inline double largest_difference(const Tensor& a, const Tensor& b) {
  const auto x = to_doubles(a), y = to_doubles(b);
  REQUIRE(x.size() == y.size());
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) worst = std::max(worst, std::abs(x[i] - y[i]));
  return worst;
}

}  // namespace lh::test
