// Softmax attention against the dense formula in fp64, on every mask feature alone and together.
#include "kernels/attention/cases.h"
#include "kernels/attention/runner.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

/// What the composite does not have: the special unit's exp2, other orders of sums.
constexpr double kAbsolute = 4e-6;

template <class T>
void backward_cases() {
  for (const NamedCase& c : attention_cases()) {
    CAPTURE(c.name);
    AttentionInputs in;
    AttentionResults want, composite;
    for_each_mode([&] {
      AttentionRun<T> run(c.shape, 1, c.gap, c.bias, c.bias);
      if (want.out.empty()) {
        in = run.inputs();
        want = reference_attention<Exact>(c.shape, in, true);
        composite = reference_attention<Rounded<T>>(c.shape, in, true);
      }
      run.forward();
      run.backward();
      check_as_precise(run.dq.dense(), want.dq, composite.dq, kAbsolute, "dq of " + c.name);
      check_as_precise(run.dk.dense(), want.dk, composite.dk, kAbsolute, "dk of " + c.name);
      check_as_precise(run.dv.dense(), want.dv, composite.dv, kAbsolute, "dv of " + c.name);
      if (c.bias) {
        check_as_precise(to_double(run.dbias.host()), want.dbias, composite.dbias, kAbsolute,
                         "dbias of " + c.name);
      }
    }, is_slow(c.shape));
  }
}

template <class T>
void forward_cases() {
  for (const NamedCase& c : attention_cases()) {
    CAPTURE(c.name);
    AttentionInputs in;
    AttentionResults want, composite;
    for_each_mode([&] {
      AttentionRun<T> run(c.shape, 1, c.gap, c.bias, false);
      if (want.out.empty()) {
        in = run.inputs();
        want = reference_attention<Exact>(c.shape, in, false);
        composite = reference_attention<Rounded<T>>(c.shape, in, false);
      }
      run.forward();
      check_as_precise(run.out.dense(), want.out, composite.out, kAbsolute, "out of " + c.name);
      check_as_precise(to_double(run.lse.host()), want.lse, composite.lse, kAbsolute,
                       "lse of " + c.name);
    }, is_slow(c.shape));
  }
}

}  // namespace

TEST_CASE("attention forward equals the dense formula, bf16") {
  forward_cases<bf16>();
}

TEST_CASE("attention backward equals the dense formula, bf16") {
  backward_cases<bf16>();
}

TEST_CASE("attention forward writes a partial result in fp32") {
  const AttentionCase c = packed({70}, 2, 1, 64, 48);
  AttentionRun<bf16> run(c, 3, 8, false, false);
  const auto in = run.inputs();
  const auto want = reference_attention<Exact>(c, in, false);
  run.forward(true);
  // Each weight is rounded by at most 2^-9 of itself, so the mean of v moves by 2^-9 max |v|.
  double largest = 0;
  for (const double x : in.v) largest = std::max(largest, std::fabs(x));
  const auto partial = run.partial.buffer.host();
  check_close(partial, want.out, 0, largest / 512, "partial");
  std::size_t rounded = 0;
  for (const float x : partial) rounded += xpu::to_float(xpu::from_float<bf16>(x)) == x;
  CHECK(rounded < partial.size() / 4);  // the first row copies v
  for (const double x : run.out.dense()) REQUIRE(std::isnan(x));
}

#ifndef __CUDACC__
TEST_CASE("attention tiles in shared memory have no bank conflicts") {
  xpu::emu::reset_counters();
  for (const int d : {64, 96, 128, 256}) {
    AttentionRun<bf16> run(packed({150}, 2, 1, d, d), 1, 0, true, false);
    run.forward();
  }
  AttentionRun<bf16> run(packed({150}, 2, 1, 192, 128), 1, 0, true, false);
  run.forward();
  CHECK(xpu::emu::counters().matrix_loads > 1000);
  CHECK(xpu::emu::counters().bank_conflicts == 0);
}
#endif

TEST_CASE("attention refuses shapes it cannot do and names them") {
  kernels::AttentionFwdParams<bf16> p;
  p.heads = 3;
  p.kv_heads = 2;
  p.head_dim = p.value_dim = 64;
  CHECK_THROWS_AS(kernels::attention_fwd(p, nullptr), xpu::Error);
  p.kv_heads = 3;
  p.head_dim = 72;
  CHECK_THROWS_AS(kernels::attention_fwd(p, nullptr), xpu::Error);
  p.head_dim = 64;
  p.q_stride = 4;
  CHECK_THROWS_AS(kernels::attention_fwd(p, nullptr), xpu::Error);
  p.q_stride = 192;
  CHECK_NOTHROW(kernels::attention_fwd(p, nullptr));  // no tiles: nothing to do
  p.schedule.query_tile_count = 1;
  p.schedule.query_tile_rows = 17;
  CHECK_THROWS_AS(kernels::attention_fwd(p, nullptr), xpu::Error);
}
