// The Hopper passes against the dense formula in fp64, on the cases they support and on longer ones
// that go round their rings.
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
  cases.push_back({"round the ring, 96", packed({1000}, 1, 1, 96, 96)});
  cases.push_back({"round the ring, 128", packed({700}, 2, 1, 128, 128)});
  cases.push_back({"round the ring of queries", packed({260}, 8, 2, 128, 128)});
  cases.push_back({"ragged, 96", packed({127, 128, 129, 1, 63}, 4, 2, 96, 96), false, 16});
  cases.push_back({"ragged, 128", packed({127, 128, 129, 1, 63}, 4, 1, 128, 128), false, 8});
  cases.push_back({"window across tiles", packed({600}, 1, 1, 128, 128, windowed(150, 4))});
  cases.push_back({"window across tiles, 96", packed({500}, 2, 1, 96, 96, windowed(150, 4))});
  // Only the last query of a tile is too far from its first key.
  cases.push_back({"window to the corner of a tile of 64 queries",
                   packed({200}, 1, 1, 128, 128, windowed(191))});
  cases.push_back({"window to the corner of a tile of 128 queries",
                   packed({300}, 1, 1, 64, 64, windowed(255))});
  AttentionCase c = packed({300}, 4, 2, 96, 96);
  c.mask.causal = false;
  cases.push_back({"all keys, 96", c});
  c = packed({}, 2, 1, 128, 128, windowed(60, 5));  // as "everything" in cases.h, without bias
  c.nq = 150;
  c.nk = 260;
  c.segments = {{0, 1, 0, 1, 0}, {1, 90, 1, 150, 60}, {91, 50, 1, 200, 150}};
  cases.push_back({"shared keys, offsets, window and sinks", c, false, 8});
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

TEST_CASE("attention backward for Hopper equals the dense formula") {
#ifdef __CUDACC__
  if (!has_sm90()) return;
#endif
  for (const NamedCase& c : sm90_cases()) {
    CAPTURE(c.name);
    AttentionInputs in;
    AttentionResults want, composite;
    for_each_mode([&] {
      AttentionRun<bf16> run(c.shape, 1, c.gap, false, true);
      if (want.out.empty()) {
        in = run.inputs();
        want = reference_attention<Exact>(c.shape, in, true);
        composite = reference_attention<Rounded<bf16>>(c.shape, in, true);
      }
      run.forward_sm90();
      run.backward_sm90();
      check_as_precise(run.dq.dense(), want.dq, composite.dq, kAbsolute, "dq of " + c.name);
      check_as_precise(run.dk.dense(), want.dk, composite.dk, kAbsolute, "dk of " + c.name);
      check_as_precise(run.dv.dense(), want.dv, composite.dv, kAbsolute, "dv of " + c.name);
    }, is_slow(c.shape));
  }
}

TEST_CASE("attention backward for Hopper repeats bit by bit, in any order of blocks") {
#ifdef __CUDACC__
  if (!has_sm90()) return;
#endif
  const AttentionCase c = packed({300, 70}, 4, 2, 96, 96);
  std::vector<double> dq, dk, dv;
  for_each_mode([&] {
    AttentionRun<bf16> run(c, 2, 8, false, true);
    run.forward_sm90();
    run.backward_sm90();
    if (dq.empty()) {
      dq = run.dq.dense();
      dk = run.dk.dense();
      dv = run.dv.dense();
    }
    CHECK(run.dq.dense() == dq);
    CHECK(run.dk.dense() == dk);
    CHECK(run.dv.dense() == dv);
  });
}

TEST_CASE("attention backward for Hopper says what it does not support") {
  kernels::AttentionBwdParams<bf16> p;
  p.heads = p.kv_heads = 1;
  p.head_dim = 128;
  p.value_dim = 64;
  CHECK(!kernels::attention_bwd_sm90_supported(p));
  CHECK_THROWS_AS(kernels::attention_bwd_sm90(p, nullptr), xpu::Error);
  p.value_dim = 128;
  CHECK(kernels::attention_bwd_sm90_supported(p));
  CHECK_NOTHROW(kernels::attention_bwd_sm90(p, nullptr));  // no tiles: nothing to do
  p.dk_stride = 4;
  CHECK(!kernels::attention_bwd_sm90_supported(p));
  p.dk_stride = 0;
  p.schedule.key_tile_count = 1;
  p.schedule.key_tile_rows = 64;
  CHECK_THROWS_AS(kernels::attention_bwd_sm90(p, nullptr), xpu::Error);
}

TEST_CASE("attention forward for Hopper says what it does not support") {
  kernels::AttentionFwdParams<bf16> p;
  p.heads = p.kv_heads = 1;
  p.head_dim = p.value_dim = 80;
  CHECK(!kernels::attention_fwd_sm90_supported(p));
  CHECK_THROWS_AS(kernels::attention_fwd_sm90(p, nullptr), xpu::Error);
  p.head_dim = p.value_dim = 128;
  CHECK(kernels::attention_fwd_sm90_supported(p));
  p.scale = 0;
  CHECK_THROWS_AS(kernels::attention_fwd_sm90(p, nullptr), xpu::Error);
  p.scale = 1;
  CHECK_NOTHROW(kernels::attention_fwd_sm90(p, nullptr));  // no tiles: nothing to do
  p.mask.window = -1;
  CHECK_THROWS_AS(kernels::attention_fwd_sm90(p, nullptr), xpu::Error);
}
