// Parallax kernels against the definition in fp64, as precisely as the composite, in every mode of the
// build and to the same bits in all of them.
#pragma once
#include <cstring>

#include "kernels/attention/cases.h"
#include "kernels/attention/parallax_runner.h"

namespace lh::test {

/// What the composite does not have: the special unit's exp2, other orders of sums.
constexpr double kParallaxAbsolute = 4e-6;

/// dout v_j and dout intercept are sums of value_dim products in two orders (the composite has one), so
/// their difference carries value_dim units of rounding where it should be 0, as in rows of one key, and
/// passes them times an operand to dq, dr and dk.
inline double from_dots(const AttentionCase& c, const ParallaxInputs& in) {
  double largest = 0;
  for (const auto* x : {&in.q, &in.r, &in.k}) {
    for (const double value : *x) {
      if (std::isfinite(value)) largest = std::max(largest, std::fabs(value));
    }
  }
  return c.value_dim * largest * 0x1p-24;
}

/// `pass` runs the forward pass of a ParallaxRun, then (unless !backward) the backward pass.
template <class T, class Pass>
void check_parallax(const NamedCase& c, float probe_size, const Pass& pass,
                    bool backward = true) {
  CAPTURE(c.name);
  ParallaxResults want, composite, first;
  double dots = 0;
  for_each_mode([&] {
    ParallaxRun<T> run(c.shape, 1, c.gap, probe_size);
    if (want.out.empty()) {
      const auto in = run.inputs();
      want = parallax_definition(c.shape, in);
      composite = parallax_composite<Rounded<T>>(c.shape, in);
      dots = from_dots(c.shape, in);
    }
    pass(run);
    const ParallaxResults got = run.results();
    if (first.out.empty()) first = got;
    const auto check = [&](std::vector<double> ParallaxResults::*field, const char* name,
                           double more = 0) {
      check_as_precise(got.*field, want.*field, composite.*field, kParallaxAbsolute + more,
                       name + (" of " + c.name));
      CHECK(std::memcmp((got.*field).data(), (first.*field).data(),
                        (got.*field).size() * sizeof(double)) == 0);
    };
    check(&ParallaxResults::out, "out");
    check(&ParallaxResults::intercept, "intercept");
    check(&ParallaxResults::lse, "lse");
    check(&ParallaxResults::probe_mean, "probe_mean");
    if (!backward) return;
    check(&ParallaxResults::dq, "dq", dots);
    check(&ParallaxResults::dr, "dr", dots);
    check(&ParallaxResults::dk, "dk", dots);
    check(&ParallaxResults::dv, "dv");
  }, is_slow(c.shape));
}

}  // namespace lh::test
