// The Hopper passes of Parallax against its definition by covariances in fp64, on the cases they support
// and on ones that go round their rings: of keys with few queries, of queries with a large group.
#include "kernels/attention/parallax_check.h"

using namespace lh;
using namespace lh::test;
using xpu::bf16;

namespace {

/// The last queries of a document of `keys` tokens.
AttentionCase last_queries(int queries, int keys, int head_dim) {
  AttentionCase c = packed({}, 1, 1, head_dim, head_dim);
  c.nq = queries;
  c.nk = keys;
  c.segments = {{0, queries, 0, keys, keys - queries}};
  return c;
}

std::vector<NamedCase> sm90_cases() {
  std::vector<NamedCase> cases;
  for (const NamedCase& c : attention_cases()) {
    const int d = c.shape.head_dim;
    if ((d == 64 || d == 96 || d == 128) && c.shape.value_dim == d && !c.bias) cases.push_back(c);
  }
  cases.push_back({"round the ring of keys, 64", last_queries(70, 900, 64)});
  cases.push_back({"round the ring of keys, 96", last_queries(70, 700, 96)});
  cases.push_back({"round the ring of keys, 128", last_queries(70, 500, 128)});
  cases.push_back({"round the ring of queries, 96", packed({70}, 6, 1, 96, 96)});
  cases.push_back({"round the ring of queries, 128", packed({50}, 6, 1, 128, 128)});
  cases.push_back({"ragged, 96", packed({95, 96, 97, 1, 63}, 4, 2, 96, 96), false, 16});
  cases.push_back({"ragged, 128", packed({47, 64, 128, 129, 1}, 2, 1, 128, 128), false, 8});
  cases.push_back({"groups, window, sinks", packed({1, 90, 40}, 6, 2, 64, 64, windowed(33, 3)),
                   false, 8});
  cases.push_back({"window across tiles", packed({350}, 1, 1, 128, 128, windowed(100, 4))});
  cases.push_back({"window across tiles, 96", packed({420}, 1, 1, 96, 96, windowed(70, 4))});
  // Only the last query of a tile is too far from its first key.
  cases.push_back({"window to the corner of a tile of 48 queries",
                   packed({200}, 1, 1, 128, 128, windowed(191))});
  cases.push_back({"window to the corner of tiles of 64 and 128 queries",
                   packed({300}, 1, 1, 64, 64, windowed(255))});
  AttentionCase c = packed({110}, 2, 1, 96, 96);
  c.mask.causal = false;
  cases.push_back({"all keys, 96", c});
  c = packed({}, 2, 1, 128, 128, windowed(60, 5));  // as "everything" in cases.h, without bias
  c.nq = 150;
  c.nk = 260;
  c.segments = {{0, 1, 0, 1, 0}, {1, 90, 1, 150, 60}, {91, 50, 1, 200, 150}};
  cases.push_back({"shared keys, offsets, window and sinks", c, false, 8});
  return cases;
}

void check_sm90(const NamedCase& c, float probe_size = 0.5f) {
  check_parallax<bf16>(c, probe_size, [](ParallaxRun<bf16>& run) {
    run.forward_sm90();
    run.backward_sm90();
  });
}

}  // namespace

TEST_CASE("parallax for Hopper equals its definition") {
#ifdef __CUDACC__
  if (!has_sm90()) return;
#endif
  for (const NamedCase& c : sm90_cases()) check_sm90(c);
}

TEST_CASE("parallax for Hopper loses no digits when heavier keys with other probe scores come late") {
#ifdef __CUDACC__
  if (!has_sm90()) return;
#endif
  for (const int d : {64, 128}) {
    AttentionCase c = packed({300}, 1, 1, d, d);
    c.scale = 1.0f;  // scores of about 8: a few keys carry a row, and the first ones none of it
    check_sm90({"peaked", c}, 1.0f);
  }
}

TEST_CASE("parallax forward for Hopper with a probe of zeros is softmax attention") {
#ifdef __CUDACC__
  if (!has_sm90()) return;
#endif
  ParallaxRun<bf16> run(packed({200, 5}, 2, 1), 3, 0, 0.0f);
  run.forward_sm90();
  CHECK(run.out.dense() == run.intercept.dense());
}

TEST_CASE("parallax forward for Hopper says what it does not support") {
  kernels::ParallaxFwdParams<bf16> p;
  p.heads = p.kv_heads = 1;
  p.head_dim = 128;
  p.value_dim = 64;
  CHECK(!kernels::parallax_fwd_sm90_supported(p));
  CHECK_THROWS_AS(kernels::parallax_fwd_sm90(p, nullptr), xpu::Error);
  p.value_dim = 128;
  CHECK(kernels::parallax_fwd_sm90_supported(p));
  p.scale = 0;
  CHECK_THROWS_AS(kernels::parallax_fwd_sm90(p, nullptr), xpu::Error);
  p.scale = 1;
  CHECK_NOTHROW(kernels::parallax_fwd_sm90(p, nullptr));  // no tiles: nothing to do
  p.r_stride = 4;
  CHECK(!kernels::parallax_fwd_sm90_supported(p));
  p.r_stride = 0;
  p.schedule.query_tile_count = 1;
  p.schedule.query_tile_rows = 64;
  CHECK_THROWS_AS(kernels::parallax_fwd_sm90(p, nullptr), xpu::Error);
}

TEST_CASE("parallax backward for Hopper says what it does not support") {
  kernels::ParallaxBwdParams<bf16> p;
  p.heads = p.kv_heads = 1;
  p.head_dim = 128;
  p.value_dim = 64;
  CHECK(!kernels::parallax_bwd_sm90_supported(p));
  CHECK_THROWS_AS(kernels::parallax_bwd_sm90(p, nullptr), xpu::Error);
  p.value_dim = 128;
  CHECK(kernels::parallax_bwd_sm90_supported(p));
  CHECK_NOTHROW(kernels::parallax_bwd_sm90(p, nullptr));  // no tiles: nothing to do
  p.dr_stride = 4;
  CHECK(!kernels::parallax_bwd_sm90_supported(p));
  p.dr_stride = 0;
  float place = 0;
  p.dbias = &place;
  CHECK(!kernels::parallax_bwd_sm90_supported(p));
  p.dbias = nullptr;
  p.schedule.key_tile_count = 1;
  p.schedule.key_tile_rows = 64;
  CHECK_THROWS_AS(kernels::parallax_bwd_sm90(p, nullptr), xpu::Error);
}
