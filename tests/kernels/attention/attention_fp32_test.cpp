// fp32 attention, forward and backward, against the dense formula in fp64 on every mask feature.
#include "kernels/attention/cases.h"
#include "kernels/attention/runner.h"

using namespace lh;
using namespace lh::test;

namespace {

/// Other orders of sums than the composite's, and exp2 in place of exp.
constexpr double kAbsolute = 4e-6;

/// The kernels take probabilities from scores and lse as they are, |s| up to 16 in units of log 2, so
/// their relative error is 16 * 2^-24; it does not average out in a sum over many queries.
constexpr double kFromLse = 1e-6;

double largest(const std::vector<double>& x) {
  double most = 0;
  for (const double value : x) most = std::max(most, std::fabs(value));
  return most;
}

}  // namespace

TEST_CASE("attention forward and backward equal the dense formula, fp32") {
  for (const NamedCase& c : attention_cases()) {
    CAPTURE(c.name);
    if (is_slow(c.shape) && kernel_build() != "plain") continue;
    AttentionInputs in;
    AttentionResults want, composite;
    for_each_mode([&] {
      AttentionRun<float> run(c.shape, 1, c.gap, c.bias, c.bias);
      if (want.out.empty()) {
        in = run.inputs();
        want = reference_attention<Exact>(c.shape, in, true);
        composite = reference_attention<Rounded<float>>(c.shape, in, true);
      }
      run.forward();
      check_as_precise(run.out.dense(), want.out, composite.out, kAbsolute, "out of " + c.name);
      check_as_precise(to_double(run.lse.host()), want.lse, composite.lse, kAbsolute,
                       "lse of " + c.name);
      run.backward();
      check_as_precise(run.dq.dense(), want.dq, composite.dq, kAbsolute, "dq of " + c.name);
      check_as_precise(run.dk.dense(), want.dk, composite.dk, kAbsolute, "dk of " + c.name);
      check_as_precise(run.dv.dense(), want.dv, composite.dv, kAbsolute, "dv of " + c.name);
      if (c.bias)
        check_as_precise(to_double(run.dbias.host()), want.dbias, composite.dbias,
                         kAbsolute + kFromLse * largest(want.dbias), "dbias of " + c.name);
    }, is_slow(c.shape));
  }
}
