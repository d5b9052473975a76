// The Hopper forward pass against the dense formula in fp64, on the cases it supports and on longer ones
// that go round its ring.
#include "kernels/attention/attention_sm90.h"

#include "kernels/attention/cases.h"
#include "kernels/attention/runner.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

constexpr double kAbsolute = 4e-6;  // as attention_test.cpp

std::vector<NamedCase> sm90_cases() {
  std::vector<NamedCase> cases;
  for (NamedCase& c : attention_cases()) {
    const int d = c.shape.head_dim;
    if ((d == 64 || d == 96 || d == 128) && c.shape.value_dim == d && !c.bias) cases.push_back(c);
  }
  cases.push_back({"round the ring, 64", packed({1300}, 1, 1)});
  cases.push_back({"round the ring, 128", packed({700}, 2, 1, 128, 128)});
  cases.push_back({"ragged, 128", packed({127, 128, 129, 1, 63}, 4, 1, 128, 128), false, 8});
  cases.push_back({"window across tiles", packed({600}, 1, 1, 128, 128, windowed(150, 4))});
  return cases;
}

}  // namespace

TEST_CASE("attention forward for Hopper equals the dense formula") {
#ifdef __CUDACC__
  if (!has_sm90()) return;
#endif
  for (const NamedCase& c : sm90_cases()) {
    CAPTURE(c.name);
    AttentionInputs in;
    AttentionResults want, composite;
    for_each_mode([&] {
      AttentionRun<bf16> run(c.shape, 1, c.gap, false, false);
      if (want.out.empty()) {
        in = run.inputs();
        want = reference_attention<Exact>(c.shape, in, false);
        composite = reference_attention<Rounded<bf16>>(c.shape, in, false);
      }
      run.forward_sm90();
      check_as_precise(run.out.dense(), want.out, composite.out, kAbsolute, "out of " + c.name);
      check_as_precise(to_double(run.lse.host()), want.lse, composite.lse, kAbsolute,
                       "lse of " + c.name);
    }, is_slow(c.shape));
  }
}

TEST_CASE("attention forward for Hopper says what it does not support") {
  kernels::AttentionFwdParams<bf16> p;
  p.heads = p.kv_heads = 1;
  p.head_dim = p.value_dim = 80;
  CHECK(!kernels::attention_fwd_sm90_supported(p));
  CHECK_THROWS_AS(kernels::attention_fwd_sm90(p, nullptr), xpu::Error);
  p.head_dim = p.value_dim = 128;
  CHECK(kernels::attention_fwd_sm90_supported(p));
}
