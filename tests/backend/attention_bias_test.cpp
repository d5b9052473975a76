// Attention with a bias per key against its definition in double (attention_reference.h), and what a
// bias must not change. Runs again at every
// instruction-set level (CMakeLists.txt).
#include <doctest/doctest.h>

#include "backend/attention_checks.h"

using namespace lh;
using namespace lh::test;

TEST_CASE("attention with a bias per key outside a window matches the definition") {
  for (const DType dtype : kDTypes)
    for (const int64_t bias_window : {0, 1, 7, 64, 100, 1000})
      for (const int64_t group : {1, 2, 8}) {
        AttentionMask mask;
        mask.bias_window = bias_window;
        check_case(packed_case({330, 20, 1, 65}, 2 * group, 2, 16, 16, mask), dtype, 3, true);
        mask.window = 90;
        mask.sinks = 3;
        check_case(packed_case({200, 30}, 2 * group, 2, 16, 32, mask), dtype, 5, true);
      }
}

TEST_CASE("attention with a bias sees queries after the first key, and keys that segments share") {
  for (const DType dtype : kDTypes) {
    AttentionCase c = packed_case({1}, 4, 2, 32, 32);
    c.plan.mask.bias_window = 20;
    c.query_rows = 100;
    c.key_rows = 400;
    c.plan.segments = {{0, 37, 0, 237, 200}, {37, 33, 100, 70, 40}, {70, 30, 310, 85, -10}};
    check_case(c, dtype, 1, true);
  }
}

TEST_CASE("attention with a bias of zero, or a window as long as the document, equals it without") {
  for (const DType dtype : kDTypes)
    for (const bool open : {true, false}) {
      AttentionCase c = packed_case({150, 3}, 4, 2, 32, 32);
      AttentionArrays a = random_arrays(c, dtype, 2);
      AttentionTensors plain(c, a, dtype);
      plain.forward(c.plan);
      plain.backward(c.plan);
      add_random_bias(c, a, 4);
      if (open) std::fill(a.bias.begin(), a.bias.end(), 0.0);
      else c.plan.mask.bias_window = 150;
      AttentionTensors t(c, a, dtype);
      t.forward(c.plan);
      t.backward(c.plan);
      CHECK(same_bytes(t.out, plain.out));
      CHECK(same_bytes(t.lse, plain.lse));
      CHECK(same_bytes(t.dq, plain.dq));
      CHECK(same_bytes(t.dk, plain.dk));
      CHECK(same_bytes(t.dv, plain.dv));
      if (!open)
        for (const double d : to_doubles(t.dbias)) CHECK(d == 0);
    }
}

TEST_CASE("attention with all keys outside the window closed equals a sliding window") {
  for (const DType dtype : kDTypes) {
    AttentionCase c = packed_case({400, 30}, 4, 2, 32, 32, {50, 0, 0});
    AttentionArrays a = random_arrays(c, dtype, 2);
    AttentionTensors windowed(c, a, dtype);
    windowed.forward(c.plan);
    windowed.backward(c.plan);
    a.bias.assign(static_cast<size_t>(c.key_rows * c.kv_heads),
                  -std::numeric_limits<double>::infinity());
    c.plan.mask = {0, 0, 50};
    AttentionTensors t(c, a, dtype);
    t.forward(c.plan);
    t.backward(c.plan);
    CHECK(difference(t.out, to_doubles(windowed.out)) < bounds_of(dtype).out);
    CHECK(difference(t.dk, to_doubles(windowed.dk)) < bounds_of(dtype).gradient);
    for (const double d : to_doubles(t.dbias)) CHECK(d == 0);
  }
}

TEST_CASE("attention with keys closed by a bias matches the definition at every density") {
  const auto check = [](AttentionCase c, DType dtype, double density, bool finite) {
    CAPTURE(dtype_name(dtype));
    CAPTURE(density);
    CAPTURE(finite);
    CAPTURE(c.key_rows);
    CAPTURE(c.heads / c.kv_heads);
    CAPTURE(c.plan.mask.bias_window);
    AttentionArrays a = random_arrays(c, dtype, 3);
    add_hard_bias(c, a, density, finite, 8);
    attention_reference(c, a);
    AttentionTensors t(c, a, dtype);
    t.forward(c.plan);
    t.backward(c.plan);
    check_results(t, a, dtype, true);
    // A gradient of the bias that nobody wants changes nothing else.
    AttentionTensors frozen(c, a, dtype);
    cpu::attention_backward(t.q, t.k, t.v, t.out, t.lse, t.d_out, c.plan, frozen.dq, frozen.dk,
                            frozen.dv, t.bias);
    CHECK(same_bytes(frozen.dq, t.dq));
    CHECK(same_bytes(frozen.dk, t.dk));
    CHECK(same_bytes(frozen.dv, t.dv));
  };
  for (const DType dtype : kDTypes) {
    for (const double density : {0.0, 0.1, 0.9, 1.0})
      for (const bool finite : {false, true})
        for (const int64_t window : {1, 128, 200})
          check(packed_case({330, 65, 1}, 4, 2, 24, 16, {0, 0, window}), dtype, density,
                finite);
    // More tiles than a run takes, and more open keys: a run ends at either.
    for (const double density : {0.02, 0.3, 0.9})
      check(packed_case({2300}, 2, 1, 16, 16, {0, 0, 128}), dtype, density, true);
    // Segments that share keys, and whose queries begin before and after the first of them.
    AttentionCase c = packed_case({1}, 6, 2, 32, 32, {0, 0, 70});
    c.query_rows = 300;
    c.key_rows = 700;
    c.plan.segments = {{0, 137, 0, 537, 400}, {137, 33, 300, 270, 240}, {170, 130, 410, 285, -10}};
    for (const double density : {0.0, 0.2, 0.8}) check(c, dtype, density, false);
  }
}
