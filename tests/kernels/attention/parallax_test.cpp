// Parallax against its definition by covariances in fp64, on every mask feature alone and together.
#include "kernels/attention/parallax_check.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

std::vector<NamedCase> parallax_cases() {
  std::vector<NamedCase> cases;
  for (const NamedCase& c : attention_cases()) {
    const int larger = std::max(c.shape.head_dim, c.shape.value_dim);
    if (!c.bias && larger <= kernels::kParallaxMaxDim) cases.push_back(c);
  }
  cases.push_back({"narrower values", packed({75}, 2, 1, 128, 64)});
  cases.push_back({"groups, window, sinks", packed({1, 90, 40}, 6, 2, 64, 64, windowed(33, 3)),
                   false, 8});
  return cases;
}

template <class T>
void check_case(const NamedCase& c, float probe_size = 0.5f) {
  check_parallax<T>(c, probe_size, [](ParallaxRun<T>& run) {
    run.forward();
    run.backward();
  });
}

template <class T>
void check_all() {
  for (const NamedCase& c : parallax_cases()) {
    if (is_slow(c.shape) && kernel_build() != "plain" && sizeof(T) == 4) continue;
    check_case<T>(c);
  }
}

}  // namespace

TEST_CASE("parallax loses no digits when all probe scores lie far from 0") {
  // A probe along a direction that all keys share: u of about 50, and only its spread counts.
  const AttentionCase c = packed({130}, 2, 1);
  ParallaxRun<bf16> run(c, 1, 0);
  auto in = run.inputs();
  for (std::size_t i = 0; i < in.k.size(); i += 64) in.k[i] = 8;
  for (std::size_t i = 0; i < in.q.size(); i += 64) in.q[i] = 0, in.r[i] = 6;
  const auto put = [](const Rows<bf16>& rows, const std::vector<double>& values) {
    std::vector<bf16> x;
    for (const double value : values) x.push_back(xpu::from_float<bf16>(static_cast<float>(value)));
    xpu::copy_in(rows.get(), x.data(), x.size() * sizeof(bf16));
  };
  put(run.q, in.q);
  put(run.r, in.r);
  put(run.k, in.k);
  const auto want = parallax_definition(c, in);
  const auto composite = parallax_composite<Rounded<bf16>>(c, in);
  run.forward();
  run.backward();
  check_as_precise(run.out.dense(), want.out, composite.out, kParallaxAbsolute, "out");
  check_as_precise(run.dr.dense(), want.dr, composite.dr, from_dots(c, in), "dr");
}

TEST_CASE("parallax loses no digits when heavier keys with other probe scores come late") {
  AttentionCase c = packed({200}, 2, 1);
  c.scale = 1.0f;  // scores of about 8: a few keys carry a row, and the first ones none of it
  check_case<bf16>({"peaked", c}, 1.0f);
  check_case<float>({"peaked", c}, 1.0f);
}

TEST_CASE("parallax with a probe of zeros is softmax attention, and the probe has a gradient") {
  const AttentionCase c = packed({70, 5}, 2, 1);
  ParallaxRun<bf16> run(c, 3, 0, 0.0f);
  run.forward();
  run.backward();
  CHECK(run.out.dense() == run.intercept.dense());
  double largest = 0;
  for (const double x : run.dr.dense()) largest = std::max(largest, std::fabs(x));
  CHECK(largest > 0.1);
}

#ifndef __CUDACC__
TEST_CASE("parallax reads shared memory without bank conflicts") {
  xpu::emu::reset_counters();
  for (const int d : {64, 96, 128}) {
    ParallaxRun<bf16> run(packed({70}, 2, 1, d, d), 1, 0);
    run.forward();
    run.backward();
  }
  CHECK(xpu::emu::counters().matrix_loads > 1000);
  CHECK(xpu::emu::counters().bank_conflicts == 0);
}
#endif

TEST_CASE("parallax refuses what it cannot do and names it") {
  const auto refused = [](const auto& p, const char* word) {
    try {
      kernels::parallax_fwd(p, nullptr);
    } catch (const xpu::Error& error) {
      return std::string(error.what()).find(word) != std::string::npos;
    }
    return false;
  };
  kernels::ParallaxFwdParams<bf16> p;
  p.heads = 4;
  p.kv_heads = 2;
  p.head_dim = p.value_dim = 64;
  CHECK_NOTHROW(kernels::parallax_fwd(p, nullptr));  // no tiles: nothing to do
  auto bad = p;
  bad.head_dim = 144;
  CHECK(refused(bad, "multiples of 16 up to 128"));
  bad = p;
  bad.kv_heads = 3;
  CHECK(refused(bad, "kv_heads"));
  bad = p;
  bad.r_stride = 4;
  CHECK(refused(bad, "r has 16-byte aligned rows"));
  bad = p;
  float place = 0;
  bad.bias = &place;
  CHECK(refused(bad, "bias"));
  bad = p;
  bad.partial = &place;
  CHECK(refused(bad, "partial"));
  bad = p;
  bad.schedule.query_tile_count = 1;
  bad.schedule.query_tile_rows = 17;
  CHECK(refused(bad, "tiles of 64"));
}

TEST_CASE("parallax equals its definition, bf16") {
  check_all<bf16>();
}

TEST_CASE("parallax equals its definition, fp32") {
  check_all<float>();
}
